import { expect, test } from 'vitest'
import { DatabaseError, RetryAfterError } from '../../../src/index.ts'
import { withFaultHook } from '../../../src/foundation/fault-points.ts'
import { publishedSql } from '../../../src/outbox/relay/notifier.ts'
import { publish, retryAtOnce } from '../../support/ledger.ts'
import { openBoss } from '../../support/queues.ts'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const

/** Where an event is for its only subscription. */
async function only(bus: PaymentBus, id: string) {
  const found = await bus.deliveries(id)
  expect(found).toHaveLength(1)
  const [delivery] = found
  if (delivery === undefined) throw new Error('there is no delivery')
  return delivery
}

const stateOf = async (bus: PaymentBus, id: string): Promise<string | undefined> =>
  (await bus.deliveries(id))[0]?.state

async function failing({ rows }: TestDatabase): Promise<Record<string, unknown>[]> {
  return rows('select state, attempts, tenant_id, error_name, error_code from bus.failing order by event_id')
}

test('an event that failed three times and was delivered: its timeline has all four attempts', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let calls = 0
  bus.subscribe({
    ...{ name: 'stubborn', events: ['note'], retry: retryAtOnce },
    handler: () => {
      calls += 1
      if (calls <= 3) throw Object.assign(new Error(`carrier 503, call ${calls}`), { code: 'E_CARRIER' })
    },
  })
  await bus.start()
  const [id = ''] = await publish(database, bus, note)
  await until('it is delivered', async () => (await stateOf(bus, id)) === 'delivered')
  const { attempts, lastError, deliveredAt, timeline } = await only(bus, id)
  expect({ attempts, lastError }).toEqual({ attempts: 4, lastError: undefined })
  expect(deliveredAt).toBeInstanceOf(Date)
  expect(
    timeline.map(({ attempt, succeeded, error }) => [attempt, succeeded, error?.code, error?.message]),
  ).toEqual([
    [1, false, 'E_CARRIER', 'carrier 503, call 1'],
    [2, false, 'E_CARRIER', 'carrier 503, call 2'],
    [3, false, 'E_CARRIER', 'carrier 503, call 3'],
    [4, true, undefined, undefined],
  ])
  const instances = new Set(timeline.map(({ instanceId }) => instanceId))
  expect(instances).toEqual(
    new Set([String((await database.rows('select id from bus.instances'))[0]?.['id'])]),
  )
  for (const { endedAt, durationMs } of timeline) {
    expect(Math.abs(endedAt.getTime() - Date.now())).toBeLessThan(60_000)
    expect(durationMs).toBeGreaterThanOrEqual(0)
  }
  expect(timeline.map(({ endedAt }) => endedAt.getTime())).toEqual(
    timeline.map(({ endedAt }) => endedAt.getTime()).toSorted((a, b) => a - b),
  )
  expect(await failing(database)).toEqual([])
  // The errors of one kind have one fingerprint.
  expect(await database.count('select count(distinct fingerprint) from bus.attempts')).toBe(1)
  expect(await bus.tenant('acme').deliveries(id)).toMatchObject([
    { state: 'delivered', timeline: [{ instanceId: undefined }, {}, {}, {}] },
  ])
  expect(await bus.tenant('rival').deliveries(id)).toEqual([])
})

test('a dead letter: by event, in the list, in its group, and for its tenant', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'doomed', events: ['note'], retry: { ...retryAtOnce, maxAttempts: 2 } },
    handler: ({ payload }) => {
      throw new TypeError(`account ${String(payload)} is unknown`)
    },
  })
  await bus.start()
  const ids = await publish(
    database,
    bus,
    note,
    { ...note, payload: 22 },
    { ...note, tenantId: 'rival', payload: 333 },
  )
  await until('all are dead', async () => (await bus.deadLetters.list()).length === 3)
  const [id = ''] = ids
  const { state, attempts, lastError, timeline, dueAt } = await only(bus, id)
  expect({ state, attempts, dueAt }).toEqual({ state: 'dead', attempts: 2, dueAt: undefined })
  expect(lastError).toMatchObject({ name: 'TypeError', message: 'account 1 is unknown' })
  expect(timeline.map(({ attempt }) => attempt)).toEqual([1, 2])
  expect(await failing(database)).toMatchObject([
    { state: 'dead', attempts: 2, tenant_id: 'acme', error_name: 'TypeError' },
    { state: 'dead', attempts: 2, tenant_id: 'acme' },
    { state: 'dead', attempts: 2, tenant_id: 'rival' },
  ])
  expect(await bus.deadLetters.groups()).toEqual([
    {
      subscriptions: ['doomed'],
      tenantCount: 2,
      isTenantCountPartial: false,
      newestSubscription: 'doomed',
      fingerprint: expect.stringMatching(/^[0-9a-f]{16}$/) as string,
      errorName: 'TypeError',
      errorCode: undefined,
      message: expect.stringMatching(/^account \d+ is unknown$/) as string,
      count: 3,
      firstAt: expect.any(Date) as Date,
      lastAt: expect.any(Date) as Date,
      newestId: expect.toSatisfy((newest: string) => ids.includes(newest)) as string,
    },
  ])
  await expect(bus.deadLetters.groups({ subscription: 'other' })).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
  const mine = await bus.tenant('acme').deadLetters.list()
  expect(mine.map((letter) => letter.id).toSorted()).toEqual(ids.slice(0, 2).toSorted())
  expect(mine.flatMap(({ failures }) => failures.map(({ stack }) => stack))).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
  ])
  expect(await bus.tenant('acme').stats()).toMatchObject({ deliveries: [{ deadCount: 2, waitingCount: 0 }] })
})

test('a blocked key: its failed event is dead and blocks, those behind wait; released, it is retried and leaves no trace', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let fails = true
  bus.subscribe({
    ...{ name: 'in-order', events: ['note'], ordered: true, retry: { ...retryAtOnce, maxAttempts: 1 } },
    handler: () => {
      if (fails) throw new Error('refused')
    },
  })
  await bus.start()
  const ids = await publish(database, bus, { ...note, orderingKey: 'k' }, { ...note, orderingKey: 'k' })
  const [first = '', second = ''] = ids
  await until('the key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
  expect(await only(bus, first)).toMatchObject({
    state: 'dead',
    attempts: 1,
    lastError: { message: 'refused' },
  })
  expect(await only(bus, second)).toMatchObject({ state: 'waiting', attempts: 0, timeline: [] })
  expect(await failing(database)).toMatchObject([{ state: 'blocked' }])
  expect(await bus.deadLetters.list()).toMatchObject([
    { id: first, blockedKey: { tenantId: 'acme', orderingKey: 'k', state: 'blocked' } },
  ])
  fails = false
  await bus.blockedKeys.release({ subscription: 'in-order', tenantId: 'acme', orderingKey: 'k' })
  await until('both are delivered', async () => (await stateOf(bus, second)) === 'delivered')
  const released = await only(bus, first)
  expect(released).toMatchObject({ state: 'delivered', attempts: 2 })
  expect(released.timeline.map(({ attempt, succeeded }) => [attempt, succeeded])).toEqual([
    [1, false],
    [2, true],
  ])
  expect(await failing(database)).toEqual([])
  expect(await bus.deadLetters.list()).toEqual([])
})

test('an event that expires after a failure keeps its attempts, and no longer counts as failing', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'late', events: ['note'], retry: { maxAttempts: 5, delaySeconds: 1, backoff: false } },
    handler: () => {
      throw new Error('not yet')
    },
  })
  await bus.start()
  const [id = ''] = await publish(database, bus, { ...note, expiresAt: new Date(Date.now() + 1500) })
  await until('it has failed', async () => (await stateOf(bus, id)) === 'retrying')
  expect(await failing(database)).toMatchObject([{ state: 'retrying', attempts: 1 }])
  const [row] = await database.rows(
    `select next_attempt_at - now() between '-1 s' and '2 s' as soon from bus.failing`,
  )
  expect(row).toEqual({ soon: true })
  await until('it has expired', async () => (await stateOf(bus, id)) === 'expired')
  const { attempts, deliveredAt, settledAt, timeline } = await only(bus, id)
  expect({ attempts, deliveredAt }).toEqual({ attempts: timeline.length, deliveredAt: undefined })
  expect(settledAt).toBeInstanceOf(Date)
  expect(timeline.every(({ succeeded }) => !succeeded)).toBe(true)
  expect(await failing(database)).toEqual([])
})

test('a dead letter that is redriven by hand is retrying, then delivered, with one timeline', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let fails = true
  let release = (): void => {}
  const held = new Promise<void>((resolve) => (release = resolve))
  bus.subscribe({
    ...{ name: 'healed', events: ['note'], retry: { ...retryAtOnce, maxAttempts: 1 } },
    handler: async () => {
      if (fails) throw new Error('broken')
      await held
    },
  })
  await bus.start()
  const [id = ''] = await publish(database, bus, note)
  await until('it is dead', async () => (await stateOf(bus, id)) === 'dead')
  fails = false
  const boss = await openBoss(database.url)
  expect(await boss.redrive('bus.healed.dead')).toBe(1)
  expect(await bus.deadLetters.list()).toEqual([])
  expect(['retrying', 'delivering']).toContain(await stateOf(bus, id))
  await until('its handler runs', async () => (await stateOf(bus, id)) === 'delivering')
  expect(await failing(database)).toMatchObject([{ state: 'retrying', attempts: 1 }])
  expect(await bus.deadLetters.groups()).toEqual([])
  release()
  await until('it is delivered', async () => (await stateOf(bus, id)) === 'delivered')
  expect((await only(bus, id)).timeline.map(({ succeeded }) => succeeded)).toEqual([false, true])
  expect(await failing(database)).toEqual([])
})

test('a dead letter that no longer holds its key is dead when it is redriven and fails again, and its key goes on', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'in-order', events: ['note'], ordered: true, retry: { ...retryAtOnce, maxAttempts: 1 } },
    handler: ({ payload }) => {
      if (payload === 1) throw new Error('refused')
    },
  })
  await bus.start()
  const key = { subscription: 'in-order', tenantId: 'acme', orderingKey: 'k' } as const
  const [id = ''] = await publish(database, bus, { ...note, orderingKey: 'k' })
  await until('the key is blocked', async () => (await failing(database))[0]?.['state'] === 'blocked')
  expect(await bus.blockedKeys.release({ ...key, skipFailed: true })).toBe(true)
  expect(await failing(database)).toMatchObject([{ state: 'dead', attempts: 1 }])
  await (await openBoss(database.url)).redrive('bus.in-order.dead')
  await until('it has failed again', async () => (await failing(database))[0]?.['attempts'] === 2)
  await until('it is dead', async () => (await bus.deadLetters.list()).length === 1)
  expect(await failing(database)).toMatchObject([{ state: 'dead', attempts: 2 }])
  expect(await bus.blockedKeys.list()).toEqual([])
  expect(await bus.deadLetters.list()).toMatchObject([{ id, tenantId: 'acme', blockedKey: undefined }])
  const [next = ''] = await publish(database, bus, { ...note, payload: 2, orderingKey: 'k' })
  await until('the key goes on', async () => (await stateOf(bus, next)) === 'delivered')
})

test('an event that waits for its first attempt is found by the times in the ids of jobs, also when it was scheduled or requeued', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'behind', events: ['note'], batchSize: 3, handler: () => {} })
  bus.subscribe({ name: 'other', events: ['payment.*'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause('behind')
  const scheduled = await publish(
    database,
    bus,
    ...[1, 2].map((payload) => ({ ...note, payload, availableAt: new Date(Date.now() + 1000) })),
  )
  const ids: string[] = []
  for (let n = 0; n < 20; n += 1) ids.push(...(await publish(database, bus, note, note, note, note)))
  for (const id of [...ids, ...scheduled])
    await until('it is dispatched', async () => (await bus.deliveries(id)).length > 0)
  for (const id of [...ids, ...scheduled])
    expect(await only(bus, id)).toMatchObject({ subscription: 'behind', state: 'waiting', attempts: 0 })
  await bus.subscriptions.resume('behind')
  for (const id of [...ids, ...scheduled])
    await until('it is delivered', async () => (await stateOf(bus, id)) === 'delivered')
})

test('outcomes of a long batch that are written early, and again because the answer to the commit was lost, make one receipt each', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  let lost = 0
  const bus = withFaultHook(
    (point) => {
      if (point !== 'settle.committed' || lost >= 2) return
      lost += 1
      throw new DatabaseError('BUS_DATABASE_UNAVAILABLE', 'the answer to the commit is lost')
    },
    () => testBus(database.url),
  )
  let release = (): void => {}
  const held = new Promise<void>((resolve) => (release = resolve))
  bus.subscribe({
    ...{ name: 'long', events: ['note'], concurrency: 30 },
    handler: async ({ payload }) => {
      if (payload === 'last') await held
    },
  })
  const ids = await publish(
    database,
    bus,
    ...Array.from({ length: 20 }, (_, n) => ({ ...note, payload: n === 19 ? 'last' : n })),
  )
  await bus.start()
  await until(
    'most are written early',
    async () => (await count('select count(*) from bus.deliveries')) === 19,
  )
  await until('twice', () => lost === 2)
  release()
  for (const id of ids) await until('it is delivered', async () => (await stateOf(bus, id)) === 'delivered')
  await bus.stop()
  expect(await count('select count(*) from bus.deliveries')).toBe(20)
  expect(await rows(`select state, retry_count from pgboss.job where name = 'bus.long'`)).toEqual([
    { state: 'completed', retry_count: 0 },
  ])
})

test('a key that is released while its dead letter, redriven by hand, is being retried gets no second job for it', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const attempts: number[] = []
  bus.subscribe({
    ...{ name: 'in-order', events: ['note'], ordered: true, retry: { maxAttempts: 1, delaySeconds: 0 } },
    handler: (_event, { attempt }) => {
      attempts.push(attempt)
      if (attempt === 1) throw new Error('refused')
      if (attempt === 2) throw new RetryAfterError(2)
    },
  })
  await bus.start()
  const [id = ''] = await publish(database, bus, { ...note, orderingKey: 'k' })
  await until('the key is blocked', async () => (await failing(database))[0]?.['state'] === 'blocked')
  // With an attempt left, as a subscription that was changed since would have.
  const boss = await openBoss(database.url)
  await database.rows(`update pgboss.queue set retry_limit = 1000002 where name = 'bus.in-order'`)
  expect(await boss.redrive('bus.in-order.dead')).toBe(1)
  await until('it has failed again', () => attempts.length === 2)
  await until('it is to be retried', async () => (await failing(database))[0]?.['attempts'] === 2)
  await bus.blockedKeys.release({ subscription: 'in-order', tenantId: 'acme', orderingKey: 'k' })
  await until('it is delivered', async () => (await stateOf(bus, id)) === 'delivered')
  await bus.stop()
  expect(attempts).toEqual([1, 2, 3])
  expect(
    await database.count(`select count(*) from pgboss.job where name = 'bus.in-order' and state <> 'failed'`),
  ).toBe(1)
})

test.each([
  ['plain', 'before'],
  ['plain', 'after'],
  ['ordered', 'before'],
  ['ordered', 'after'],
])(
  'a claim that a crash of the server undoes is made again, and each event has one receipt: %s, the late worker writes %s the new one',
  async (kind, when) => {
    const database = await createTestDatabase()
    const { rows, count } = database
    const bus = testBus(database.url)
    let calls = 0
    let release = (): void => {}
    const held = new Promise<void>((resolve) => (release = resolve))
    bus.subscribe({
      ...{ name: 'twice', events: ['note'], ...(kind === 'ordered' ? { ordered: true } : {}) },
      handler: async () => {
        calls += 1
        if (calls <= 1) await held
      },
    })
    await bus.start()
    const ids = await publish(
      database,
      bus,
      ...Array.from({ length: 8 }, () => ({ ...note, orderingKey: 'k' })),
    )
    await until('they run', () => calls > 0)
    // As after the crash: the jobs and the keys are gone ...
    await rows(`delete from pgboss.job where name = 'bus.twice'`)
    await rows('delete from bus.ordered_events')
    await rows('delete from bus.ordered_keys')
    // ... and the rows of the outbox are back.
    const undo = async () => {
      await rows(
        `insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key) overriding system value
         select nextval('bus.outbox_position_seq') + 2305843009213693952, id, tenant_id, type, 10, ordering_key
         from bus.events where ordering_key = 'k' order by id`,
      )
      // A relay whose sessions a crash has ended looks at the outbox.
      await rows(publishedSql)
    }
    const one = async () => {
      const [id = ''] = await publish(database, bus, { ...note, orderingKey: 'other' })
      await until('another one is delivered', async () => (await stateOf(bus, id)) === 'delivered')
    }
    const untilReceived = async () =>
      until(
        'all have a receipt',
        async () => (await count('select count(distinct event_id) from bus.deliveries')) === 9,
      )
    if (when === 'before') {
      release()
      await until('the first claim has run', () => calls === 8)
      // Behind it, in the order of settlements.
      await one()
      await undo()
      await until('the second claim has run', () => calls === 17)
      await untilReceived()
    } else {
      await undo()
      await one()
      await untilReceived()
      release()
    }
    await bus.stop()
    expect(await count('select count(*) from bus.deliveries')).toBe(9)
    expect(await count(`select count(*) from bus.deliveries where event_id = any($1::uuid[])`, [ids])).toBe(8)
  },
)

test('receipts of first attempts are packed, and read as one each', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: string[] = []
  bus.subscribe({ name: 'many', events: ['note'], handler: ({ id }) => void seen.push(id) })
  bus.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', handler: () => {} })
  const ids = await publish(database, bus, ...Array.from({ length: 1000 }, () => note))
  await bus.start()
  await until(
    'all are delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 2000,
  )
  expect(
    await database.count(
      'select count(*) from bus.receipts r join bus.subscriptions s on s.id = r.subscription_id where s.name = $1',
      ['once'],
    ),
  ).toBe(1000)
  const [packed] = await database.rows(
    `select count(*)::int as rows, sum(cardinality(event_ids))::int as events, max(cardinality(event_ids)) as most,
       bool_and(event_id = event_ids[1] and last_event_id = event_ids[cardinality(event_ids)] and cardinality(durations_ms) = cardinality(event_ids)) as is_right
     from bus.receipt_batches`,
  )
  expect(packed).toMatchObject({ is_right: true })
  expect(packed?.['events']).toBeGreaterThan(900)
  expect(packed?.['most']).toBeLessThanOrEqual(90)
  expect(packed?.['rows']).toBeLessThan(100)
  expect(
    await database.rows(
      `select s.name, count(distinct d.event_id)::int as events, count(*)::int as receipts from bus.deliveries d join bus.subscriptions s on s.id = d.subscription_id group by 1 order by 1`,
    ),
  ).toEqual([
    { name: 'many', events: 1000, receipts: 1000 },
    { name: 'once', events: 1000, receipts: 1000 },
  ])
  expect(seen.toSorted()).toEqual(ids.toSorted())
  for (const id of [ids[0] ?? '', ids[499] ?? '', ids[999] ?? ''])
    expect(await bus.deliveries(id)).toMatchObject([
      { subscription: 'many', state: 'delivered', attempts: 1, timeline: [{ attempt: 1, succeeded: true }] },
      { subscription: 'once', state: 'delivered', attempts: 1 },
    ])
  expect(await bus.tenant('acme').stats()).toMatchObject({
    deliveries: [{ deliveredCount: 1000 }, { deliveredCount: 1000 }],
  })
})
