import { Client } from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { backgroundPriority } from '../../src/delivery/jobs/job.ts'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { publish } from '../support/ledger.ts'
import { note } from '../support/health.ts'

/** So many events of an hour ago, dispatched before any subscription was there. */
async function fillLog({ rows }: TestDatabase, count: number): Promise<void> {
  await rows(
    `insert into bus.events (id, tenant_id, type, source, payload, created_at)
     select overlay(overlay(bus.uuid_v7_floor(at)::text placing '7' from 15) placing lpad(to_hex(n), 12, '0') from 25)::uuid,
       'acme', 'note', 'psql', to_jsonb(n), at
     from generate_series(1, $1::int) n cross join lateral (select now() - interval '1 hour' + n * interval '5 milliseconds' as at) t`,
    [count],
  )
  await rows('delete from bus.outbox')
}

/** The lag of a subscription, as health and as dashboards have it. */
async function lagsOf(bus: PaymentBus, name: string): Promise<readonly (number | undefined)[]> {
  const { subscriptions = [] } = await bus.health({ full: true })
  const [ofViews] = await bus.queries.lag({ subscription: name })
  return [subscriptions.find((each) => each.name === name)?.lagSeconds, ofViews?.lagSeconds]
}

const waitsFor = (name: string, seconds: number): string =>
  `select count(*) from pgboss.job where name = 'bus.${name}' and state = 'created' and start_after < now() - interval '${seconds} seconds'`

test('what waits for a catch-up or a replay is no lag, and a new event behind it is', async () => {
  const database = await createTestDatabase()
  await fillLog(database, 20)
  const bus = testBus(database.url, { admission: { maxLagSeconds: 60 } })
  let gate = Promise.withResolvers<void>()
  let handledCount = 0
  const handler = async (): Promise<void> => {
    await gate.promise
    handledCount += 1
  }
  bus.subscribe({
    ...{ name: 'late', events: ['note'], startFrom: 'beginning', handler },
    ...{ concurrency: 1, batchSize: 1 },
  })
  await bus.start()
  await until('the past waits', async () => (await database.count(waitsFor('late', 1))) > 10)
  expect(await lagsOf(bus, 'late')).toEqual([0, 0])
  await publish(database, bus, note)
  await until('a new event waits', async () => {
    const lags = await lagsOf(bus, 'late')
    return lags.every((lag) => lag !== undefined && lag > 1)
  })
  for (const lag of await lagsOf(bus, 'late')) expect(lag).toBeLessThan(600)
  await expect(bus.admit()).resolves.toBeUndefined()
  gate.resolve()
  await until('all are handled', () => handledCount === 21)
  gate = Promise.withResolvers()
  await until(
    'all are settled',
    async () => (await database.count('select count(*) from bus.deliveries')) === 21,
  )
  await bus.replay({ type: 'note', subscriptions: ['late'], by: 'ana' })
  await until('the replay waits', async () => (await database.count(waitsFor('late', 2))) > 10)
  expect(await lagsOf(bus, 'late')).toEqual([0, 0])
  gate.resolve()
})

test('a job is in the background by its priority, unless it was left to other code, or because it is of a replay', async () => {
  const { rows } = await createTestDatabase()
  const cases: readonly (readonly [number, string | null, string | null, boolean])[] = [
    [backgroundPriority, null, '{}', true],
    // A part of it that was put back.
    [backgroundPriority - 3, null, '{}', true],
    [backgroundPriority, null, '{"replay": {}}', true],
    // An event of a replay that is tried again.
    [1, null, '{"replay": {}}', true],
    [backgroundPriority, 'left by 1', '{}', false],
    [backgroundPriority + 1, null, '{}', false],
    // A job of somebody else.
    [0, null, null, false],
  ]
  for (const [priority, group, data, expected] of cases)
    expect(
      await rows('select bus.is_background_job($1, $2, $3::jsonb) as found', [priority, group, data]),
    ).toEqual([{ found: expected }])
})

test('events that are held until an ordered subscription has caught up make neither depth nor lag, and keep nobody from publishing', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  await fillLog(database, 3)
  await rows(`update bus.events set ordering_key = 'k'`)
  const bus = testBus(database.url, { admission: { maxOutboxDepth: 5, maxLagSeconds: 1 } })
  let handledCount = 0
  bus.subscribe({
    ...{ name: 'late', events: ['note'], ordered: true, startFrom: 'beginning' },
    handler: () => void (handledCount += 1),
  })
  // It does not get on while somebody has the lock on the order.
  const holder = new Client({ connectionString: database.url })
  await holder.connect()
  onTestFinished(async () => holder.end())
  await holder.query('begin; select pg_advisory_xact_lock(1651864320, 6)')
  await bus.start()
  const [catchUp] = await bus.operations.list({ kind: 'catch-up' })
  const id = catchUp?.id ?? ''
  await bus.operations.pause(id, { by: 'ana' })
  await holder.query('rollback')
  await publish(database, bus, ...Array.from({ length: 20 }, () => ({ ...note, orderingKey: 'k' })))
  const held = 'select count(*) from bus.outbox where subscription_id is not null'
  await until('they are held', async () => (await count(held)) === 20)
  const heldAt = performance.now()
  await until('it was measured after a while', async () => {
    await bus.admit()
    return performance.now() - heldAt > 3000
  })
  const state = async () => ({
    outbox: (await bus.health({ full: true })).outbox,
    depth: (await bus.queries.depth({ subscription: 'late' }))[0],
    lag: (await bus.queries.lag()).map(({ lagSeconds }) => lagSeconds),
  })
  expect(await state()).toMatchObject({
    outbox: { depth: 0, lagSeconds: 0 },
    depth: { readyEvents: 0, deferredEvents: 20 },
    lag: [0, 0],
  })
  await bus.operations.resume(id, { by: 'ana' })
  await until('all are handled', () => handledCount === 23)
  await bus.stop()
  expect(
    await rows('select catch_up_until, catch_up_ended_at is not null as ended from bus.subscriptions'),
  ).toEqual([{ catch_up_until: null, ended: true }])

  // Some that a relay has not taken yet when it has caught up: they are due from there.
  await rows(
    `insert into bus.outbox (position, event_id, tenant_id, type, ordering_key, subscription_id) overriding system value
     select -n, e.id, e.tenant_id, e.type, e.ordering_key, s.id
     from (select *, row_number() over (order by id) as n from bus.events order by id limit 4) e cross join bus.subscriptions s`,
  )
  const reader = testBus(database.url)
  expect(await reader.health({ full: true })).toMatchObject({ outbox: { depth: 0, lagSeconds: 0 } })
  expect(await reader.queries.depth({ subscription: 'late' })).toMatchObject([{ readyEvents: 4 }])
  const [late, relay] = await reader.queries.lag()
  expect(late?.lagSeconds).toBeGreaterThan(0)
  expect(late?.lagSeconds).toBeLessThan(600)
  expect(relay?.lagSeconds).toBe(0)
  // Its positive twin: what a lock has kept from a subscription.
  await rows('update bus.subscriptions set catch_up_ended_at = null')
  const { outbox } = await reader.health({ full: true })
  expect(outbox?.depth).toBe(4)
  expect(outbox?.lagSeconds).toBeGreaterThan(3000)
  for (const { lagSeconds } of await reader.queries.lag()) expect(lagSeconds).toBeGreaterThan(3000)
})

test('the end of a catch-up of a subscription that is not ordered changes nothing of when its events are due', async () => {
  const database = await createTestDatabase()
  await fillLog(database, 2)
  const bus = testBus(database.url)
  let handledCount = 0
  bus.subscribe({
    ...{ name: 'late', events: ['note'], startFrom: 'beginning' },
    handler: () => void (handledCount += 1),
  })
  await bus.start()
  await until('both are handled', () => handledCount === 2)
  await until(
    'it has ended',
    async () =>
      (await database.count('select count(*) from bus.subscriptions where catch_up_until is null')) === 1,
  )
  expect(await database.rows('select catch_up_ended_at from bus.subscriptions')).toEqual([
    { catch_up_ended_at: null },
  ])
})
