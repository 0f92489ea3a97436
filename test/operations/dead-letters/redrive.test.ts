import { PgBoss } from 'pg-boss'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { ended, subscribeDoomed, untilDead } from '../../support/dead-letters.ts'
import { publish } from '../../support/ledger.ts'

const note = { type: 'note', tenantId: 'acme' } as const
const by = { by: 'ana', reason: 'the account is there now' }

test('a redrive tries dead letters again with all their attempts, once each, and keeps both histories', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  await bus.start()
  const ids = await publish(database, bus, ...[1, 2, 3].map((payload) => ({ ...note, payload })))
  await untilDead(database, 3)
  const again = await bus.deadLetters.redrive({ subscription: 'doomed' }, { ...by, probe: 0 })
  expect(await ended(bus, again)).toMatchObject({
    ...{ kind: 'redrive', state: 'done', counts: { redriven: 3 }, totalCount: 3, by: 'ana' },
    ...{ reason: by.reason, subscriptions: ['doomed'] },
  })
  await until('they failed again', () => doomed.tried.length === 12)
  await untilDead(database, 3)
  const [delivery] = await bus.deliveries(ids[0] ?? '')
  expect(delivery).toMatchObject({ state: 'dead', attempts: 4 })
  expect(delivery?.timeline.map(({ attempt, succeeded }) => [attempt, succeeded])).toEqual([
    [1, false],
    [2, false],
    [3, false],
    [4, false],
  ])
  doomed.fails = false
  const last = await bus.deadLetters.redrive({ subscription: 'doomed' }, by)
  expect(await ended(bus, last)).toMatchObject({ state: 'done', counts: { redriven: 3 } })
  await until('all are delivered', () => doomed.done.length === 3)
  expect(new Set(doomed.done)).toEqual(new Set([1, 2, 3]))
  await until('nothing fails', async () => (await database.count('select count(*) from bus.failing')) === 0)
  expect(await bus.deadLetters.list()).toEqual([])
  expect((await bus.deliveries(ids[0] ?? ''))[0]).toMatchObject({ state: 'delivered', attempts: 5 })
  expect(await database.count(`select count(*) from pgboss.job where name = 'bus.doomed.dead'`)).toBe(0)
  expect(await bus.audit.list({ action: 'deadLetters.redrive' })).toMatchObject([
    { by: 'ana', reason: by.reason, outcome: { state: 'done', counts: { redriven: 3 } } },
    { by: 'ana', outcome: { state: 'done', counts: { redriven: 3 } } },
  ])
})

test('a dry run counts what a redrive would do, by subscription and obstacle, and changes nothing', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  subscribeDoomed(bus, 'doomed')
  subscribeDoomed(bus, 'in-order', { ordered: true })
  subscribeDoomed(bus, 'gone')
  await bus.start()
  const ids = await publish(
    database,
    bus,
    { ...note, payload: 1, subject: 'ana' },
    { ...note, payload: 2, orderingKey: 'k' },
    { ...note, payload: 3, orderingKey: 'k' },
    { ...note, payload: 4 },
  )
  await untilDead(database, 4 + 3 + 4)
  await bus.stop()
  const operator = testBus(database.url)
  await database.rows(`update bus.events set expires_at = now() - interval '1 hour' where id = $1`, [ids[3]])
  await database.rows(`update bus.events set erased_at = now() where id = $1`, [ids[0]])
  await database.rows(`delete from bus.subscriptions where name = 'gone'`)
  await database.rows(`delete from bus.events where id = $1`, [ids[1]])
  await database.rows(`delete from pgboss.job where name = 'bus.doomed.dead' and data->'eventIds'->>0 = $1`, [
    ids[2],
  ])
  const preview = await operator.deadLetters.redrive({ from: new Date(0) }, { by: 'ana', dryRun: true })
  expect(preview).toEqual({
    count: 11,
    isCountPartial: false,
    subscriptions: [
      { subscription: 'doomed', count: 4, keyCount: 0 },
      { subscription: 'in-order', count: 3, keyCount: 1 },
      { subscription: undefined, count: 4, keyCount: 0 },
    ],
    examinedCount: 11,
    unroutable: { noSubscription: 4, noQueue: 0, notInLog: 2, moved: 1 },
    notHandled: { expired: 2, erased: 2 },
  })
  expect(await operator.operations.list()).toEqual([])
  expect(await database.count(`select count(*) from bus.failing where state <> 'retrying'`)).toBe(11)
})

test('only what matches is redriven: by type, tenant, error, state, time and ids', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed', { events: ['note', 'payment.refunded'] } as object)
  await bus.start()
  const ids = await publish(
    database,
    bus,
    { ...note, payload: 'a' },
    { ...note, payload: 'bb', tenantId: 'rival' },
    { type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: 'p' } },
    { ...note, payload: 'cc' },
  )
  await untilDead(database, 4)
  const count = async (selection: Parameters<typeof bus.deadLetters.redrive>[0]): Promise<number> =>
    (await bus.deadLetters.redrive(selection, { by: 'ana', dryRun: true })).count
  const [letter] = await bus.deadLetters.list({ tenantId: 'rival' })
  expect(await count({ subscription: 'doomed' })).toBe(4)
  expect(await count({ type: 'note' })).toBe(3)
  expect(await count({ type: ['payment.refunded', 'none'] })).toBe(1)
  expect(await count({ tenantId: 'rival' })).toBe(1)
  expect(await count({ errorName: 'TypeError' })).toBe(4)
  expect(await count({ errorName: 'RangeError' })).toBe(0)
  expect(await count({ fingerprint: letter?.fingerprint })).toBe(4)
  expect(await count({ state: 'blocked' })).toBe(0)
  expect(await count({ to: letter?.deadAt })).toBeLessThan(4)
  expect(await count({ from: new Date(Date.now() + 60_000) })).toBe(0)
  doomed.fails = false
  const operation = await bus.deadLetters.redrive(
    { subscription: 'doomed', ids: ids.slice(0, 1) },
    { by: 'ana' },
  )
  expect(await ended(bus, operation)).toMatchObject({ state: 'done', counts: { redriven: 1 } })
  const ofType = await bus.deadLetters.redrive({ type: 'payment.refunded' }, { by: 'ana' })
  expect(await ended(bus, ofType)).toMatchObject({ state: 'done', counts: { redriven: 1 } })
  await until('two are delivered', () => doomed.done.length === 2)
  expect(doomed.done).toEqual(['a', { paymentId: 'p' }])
  expect(await bus.deadLetters.list()).toMatchObject([{ id: ids[1] }, { id: ids[3] }])
})

test('five go first, alone: when all of them fail again the redrive stops and says why, and goes on when it is resumed', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  await bus.start()
  await publish(database, bus, ...Array.from({ length: 20 }, (_, payload) => ({ ...note, payload })))
  await untilDead(database, 20)
  const triedBefore = doomed.tried.length
  const operation = await bus.deadLetters.redrive({ subscription: 'doomed' }, by)
  const stopped = await ended(bus, operation)
  expect(stopped).toMatchObject({ state: 'stopped', counts: { redriven: 5, probesFailed: 5 } })
  expect(stopped.stateReason).toBe(
    'The first 5 of them failed again, in `doomed` with TypeError: account 1 is unknown',
  )
  expect(new Set(doomed.tried.slice(triedBefore).map(({ payload }) => payload)).size).toBe(5)
  doomed.fails = false
  expect(await bus.operations.resume(operation.id, { by: 'ben' })).toBe(true)
  // The five that failed again are dead since: they were not, when it was asked for.
  expect(await ended(bus, operation)).toMatchObject({ state: 'done', counts: { redriven: 20 } })
  await until('the others are delivered', () => doomed.done.length === 15)
  await untilDead(database, 5)
})

test('what somebody else redrives through pg-boss at the same time is delivered once, and counted as skipped', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  await bus.start()
  const payloads = Array.from({ length: 60 }, (_, n) => n)
  await publish(database, bus, ...payloads.map((payload) => ({ ...note, payload })))
  await untilDead(database, 60)
  doomed.fails = false
  const boss = new PgBoss(database.url)
  boss.on('error', () => {})
  await boss.start()
  onTestFinished(async () => boss.stop({ graceful: false }))
  const [operation, , moved] = await Promise.all([
    bus.deadLetters.redrive({ subscription: 'doomed' }, { by: 'ana', probe: 0 }),
    bus.deadLetters.redrive({ subscription: 'doomed' }, { by: 'ben', probe: 0 }),
    boss.redrive('bus.doomed.dead', { limit: 30 }),
  ])
  const { counts } = await ended(bus, operation)
  expect(moved).toBeGreaterThanOrEqual(0)
  expect((counts['redriven'] ?? 0) + (counts['skipped'] ?? 0)).toBeLessThanOrEqual(60)
  await until('all are delivered', () => doomed.done.length >= 60)
  await until('nothing fails', async () => (await database.count('select count(*) from bus.failing')) === 0)
  expect([...doomed.done].toSorted((a, b) => Number(a) - Number(b))).toEqual(payloads)
})

test('a redrive of an ordered subscription releases keys, and each key is delivered in order', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const blocks = subscribeDoomed(bus, 'blocks', { ordered: true })
  const parks = subscribeDoomed(bus, 'parks', { ordered: true, onKeyFailure: 'park' })
  await bus.start()
  const payloads = Array.from({ length: 30 }, (_, n) => `k${n % 3} ${String(n).padStart(2, '0')}`)
  await publish(
    database,
    bus,
    ...payloads.map((payload) => ({ ...note, payload, orderingKey: payload.slice(0, 2) })),
  )
  await untilDead(database, 6)
  // The parked ones behind them are dead letters without an attempt.
  expect(await bus.deadLetters.list({ subscription: 'parks' })).toHaveLength(30)
  expect(await bus.deadLetters.list({ subscription: 'parks', state: 'parked' })).toHaveLength(30)
  const [first] = await bus.deadLetters.list({ subscription: 'blocks' })
  expect(await bus.deadLetters.get(first?.id ?? '', 'blocks')).toMatchObject({
    ...{ redrive: 'release-key', behindCount: 9, state: 'blocked' },
    timeline: [{ attempt: 1 }, { attempt: 2 }],
  })
  for (const doomed of [blocks, parks]) doomed.fails = false
  const operation = await bus.deadLetters.redrive({ from: new Date(0) }, { by: 'ana' })
  expect(await ended(bus, operation)).toMatchObject({ state: 'done', counts: { redriven: 6 } })
  for (const { done } of [blocks, parks]) {
    await until('all are delivered', () => done.length === 30)
    const byKey = Map.groupBy(done as string[], (payload) => payload.slice(0, 2))
    for (const ofKey of byKey.values()) expect(ofKey).toEqual(ofKey.toSorted())
    expect(byKey.size).toBe(3)
  }
  expect(await bus.deadLetters.list()).toEqual([])
})

test('skipped events of a key are redriven in order, behind those that wait, and one at a time', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const skips = subscribeDoomed(bus, 'skips', { ordered: true, onKeyFailure: 'skip' })
  await bus.start()
  const payloads = ['1', '2', '3', '4', '5']
  const ids = await publish(
    database,
    bus,
    ...payloads.map((payload) => ({ ...note, payload, orderingKey: 'k' })),
  )
  await untilDead(database, 5)
  expect(await bus.deadLetters.get(ids[0] ?? '', 'skips')).toMatchObject({ redrive: 'append-to-key' })
  const again = await bus.deadLetters.redrive({ subscription: 'skips' }, { by: 'ana', probe: 2 })
  expect(await ended(bus, again)).toMatchObject({ state: 'stopped', counts: { redriven: 2 } })
  await untilDead(database, 5)
  skips.fails = false
  const tried = skips.tried.length
  const last = await bus.deadLetters.redrive({ subscription: 'skips' }, { by: 'ana', probe: 2 })
  expect(await ended(bus, last)).toMatchObject({ state: 'done', counts: { redriven: 5 } })
  await until('all are delivered', () => skips.done.length === 5)
  expect(skips.tried.length).toBe(tried + 5)
  // The first two became dead letters again, so that others went first; the rest is in the order of publishing.
  expect(skips.done).toEqual(['3', '4', '1', '2', '5'])
  await until('nothing fails', async () => (await database.count('select count(*) from bus.failing')) === 0)
  await until(
    'the first one has its receipt',
    async () => (await bus.deliveries(ids[0] ?? ''))[0]?.state === 'delivered',
  )
})

test('a rate spreads a redrive over time, and it can be held and ended', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  await bus.start()
  await publish(database, bus, ...Array.from({ length: 10 }, (_, payload) => ({ ...note, payload })))
  await untilDead(database, 10)
  doomed.fails = false
  const operation = await bus.deadLetters.redrive(
    { subscription: 'doomed' },
    { by: 'ana', rate: 2, probe: 0 },
  )
  await until('it has begun', () => doomed.done.length > 0)
  expect(await bus.operations.pause(operation.id, { by: 'ben' })).toBe(true)
  const { counts } = await bus.operations.get(operation.id)
  expect(counts['redriven']).toBeLessThan(10)
  expect(await bus.operations.cancel(operation.id, { by: 'ben' })).toBe(true)
  await until('what it has done is delivered', () => doomed.done.length === counts['redriven'])
  await untilDead(database, 10 - (counts['redriven'] ?? 0))
})

test('bad input is refused before anything is written', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const refusal = { code: 'BUS_INVALID_OPTION' }
  const { redrive, discard } = bus.deadLetters
  await expect(redrive({}, { by: 'ana' })).rejects.toMatchObject(refusal)
  await expect(redrive({ subscription: undefined }, { by: 'ana' })).rejects.toMatchObject(refusal)
  await expect(redrive({ ids: ['x'] }, { by: 'ana' })).rejects.toMatchObject(refusal)
  await expect(redrive({ tenantId: 'a' }, {} as never)).rejects.toMatchObject(refusal)
  await expect(redrive({ tenantId: 'a' }, { by: 'ana', speed: 1 } as never)).rejects.toMatchObject(refusal)
  // Null is not left out: a rate of null would be a rate of something.
  for (const option of ['rate', 'probe', 'dryRun', 'reason'])
    await expect(redrive({ tenantId: 'a' }, { by: 'ana', [option]: null } as never)).rejects.toMatchObject({
      ...refusal,
      option,
    })
  await expect(redrive({ state: 'lost' } as never, { by: 'ana' })).rejects.toMatchObject(refusal)
  await expect(discard({ tenantId: 'a' }, { by: 'ana' } as never)).rejects.toMatchObject(refusal)
  await expect(redrive({ subscription: 'none' }, { by: 'ana' })).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
  expect(await bus.operations.list()).toEqual([])
  expect(await bus.audit.list()).toEqual([])
})
