import { expect, test } from 'vitest'
import type { SubscriptionExplanation } from '../../src/index.ts'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { publish, retryAtOnce } from '../support/ledger.ts'
import { openSession } from '../support/session.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const

/** What is explained for one subscription. */
async function explained(
  bus: PaymentBus,
  id: string,
  subscription: string,
): Promise<SubscriptionExplanation> {
  const { subscriptions } = await bus.explain(id, subscription)
  expect(subscriptions).toHaveLength(1)
  const [only] = subscriptions
  if (only === undefined) throw new Error('nothing is explained')
  return only
}

async function untilReason(bus: PaymentBus, id: string, name: string, reason: string) {
  await until(
    `the reason is ${reason}`,
    async () => (await explained(bus, id, name)).reason.reason === reason,
  )
  return explained(bus, id, name)
}

/** A handler that waits until it is let go. */
function gate() {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { handler: async () => promise, open: resolve }
}

async function publishOne(
  database: TestDatabase,
  bus: PaymentBus,
  event: Parameters<typeof publish>[2] = note,
) {
  const [id = ''] = await publish(database, bus, event)
  return id
}

test('an event that is not in the log', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const id = '019a2279-8604-70ad-bda8-b7b51b3cd606'
  expect(await bus.explain(id)).toEqual({
    ...{ id, isInLog: false, type: undefined, tenantId: undefined, reason: undefined, subscriptions: [] },
    sentence: `There is no event ${id} in the log.`,
  })
})

test('an event whose job is in the queue of a subscription that no pattern of which matches it', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause('seen')
  const id = await publishOne(database, bus)
  await until('it waits', async () => (await bus.subscriptions.get('seen')).waitingCount === 1)
  for (const table of ['subscriptions', 'declarations'])
    await database.rows(`update bus.${table} set patterns = '{payment.paid}'`)
  expect(await explained(bus, id, 'seen')).toMatchObject({
    state: 'waiting',
    reason: { reason: 'paused' },
    also: [{ reason: 'not-covered' }, { reason: 'waiting' }],
  })
  expect((await bus.explain(id)).sentence).not.toContain('Not routed')
})

test('not dispatched, and whether a relay runs; scheduled; cancelled', async () => {
  const database = await createTestDatabase()
  const first = testBus(database.url)
  first.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
  first.subscribe({ name: 'other', events: ['payment.paid'], handler: () => {} })
  await first.start()
  await first.stop()
  const bus = testBus(database.url)
  const id = await publishOne(database, bus)
  const explanation = await bus.explain(id)
  expect(explanation).toMatchObject({
    sentence: 'Not dispatched yet: no running process has a relay.',
    reason: { reason: 'not-dispatched', relayCount: 0 },
    subscriptions: [
      { subscription: 'other', reason: { reason: 'no-pattern-matches' } },
      { subscription: 'seen', state: undefined, reason: { reason: 'not-dispatched', relayCount: 0 } },
    ],
  })
  await database.rows(
    `insert into bus.instances (id, service, host, pid, version, seen_at, relay, declarations) values (gen_random_uuid(), 's', 'h', 1, 'v', now(), 'leading', '{}')`,
  )
  expect((await bus.explain(id)).reason).toEqual({ reason: 'not-dispatched', relayCount: 1 })
  // Among many: found by its time.
  await database.rows(
    `insert into bus.outbox (event_id, tenant_id, type) select overlay(bus.uuid_v7_floor(now() - n * interval '1 second')::text placing '7' from 15)::uuid, 'acme', 'note' from generate_series(60000, 1, -1) n`,
  )
  const last = await publishOne(database, bus)
  expect((await bus.explain(last)).reason?.reason).toBe('not-dispatched')
  const availableAt = new Date(Date.now() + 3_600_000)
  const later = await publishOne(database, bus, { ...note, availableAt })
  expect(await bus.explain(later)).toMatchObject({
    sentence: `Scheduled until ${availableAt.toISOString()}.`,
    reason: { reason: 'scheduled', until: availableAt },
  })
  expect((await explained(bus, later, 'seen')).reason.reason).toBe('scheduled')
  await database.db.transaction(async (tx) => bus.cancel(tx, later))
  const cancelled = await bus.explain(later)
  expect(cancelled.reason).toEqual({ reason: 'cancelled', at: expect.any(Date) as Date })
  expect((await explained(bus, later, 'seen')).reason.reason).toBe('cancelled')
})

test('not routed: no pattern, `where` false, `where` that cannot judge, and a subscription that came later', async () => {
  const database = await createTestDatabase()
  const first = testBus(database.url)
  first.subscribe({ name: 'patterns', events: ['payment.*', 'usage.billed'], handler: () => {} })
  first.subscribe({ name: 'false', events: ['note'], where: '$.amount > 1000', handler: () => {} })
  first.subscribe({
    name: 'error',
    events: ['note'],
    where: '$.at.datetime() > "2020-01-01".datetime()',
    handler: () => {},
  })
  first.subscribe({
    name: 'raises',
    events: ['note'],
    where: '$.on.datetime() > "2026-01-01T00:00:00+00:00".datetime()',
    handler: () => {},
  })
  first.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
  await first.start()
  const id = await publishOne(database, first, {
    ...note,
    payload: { amount: 7, at: 'tomorrow', on: '2026-02-03' },
  })
  await untilReason(first, id, 'seen', 'delivered')
  await first.stop()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'later', events: ['note'], handler: () => {} })
  await bus.start()
  const { subscriptions } = await bus.explain(id)
  const [error, isFalse, later, patterns, raises, seen] = subscriptions
  expect(subscriptions.map(({ state }) => state)).toEqual([...Array.from({ length: 5 }), 'delivered'])
  expect(patterns).toMatchObject({
    sentence: 'Not routed: no pattern matches note (payment.*, usage.billed).',
    reason: { reason: 'no-pattern-matches', type: 'note', patterns: ['payment.*', 'usage.billed'] },
  })
  expect(isFalse).toMatchObject({
    sentence: 'Not routed: `where` is not true of its payload: $.amount > 1000.',
    reason: { reason: 'predicate-false', where: ['$.amount > 1000'] },
  })
  expect(error?.reason).toMatchObject({ reason: 'predicate-error', problem: undefined })
  expect(raises?.reason).toMatchObject({
    ...{ reason: 'predicate-error', problem: expect.stringMatching(/^\w{5}: .*time zone/) as string },
  })
  // What the payload says is not repeated.
  expect(JSON.stringify([error, raises])).not.toMatch(/tomorrow|02-03/)
  expect(later?.reason).toEqual({ reason: 'not-routed', registeredAt: expect.any(Date) as Date })
  expect(seen?.reason.reason).toBe('delivered')
  expect((await bus.explain(id)).sentence).toBe('Delivered to seen.')
  await expect(bus.explain(id, 'never')).rejects.toMatchObject({ code: 'BUS_SUBSCRIPTION_NOT_FOUND' })
  await expect(bus.explain('7')).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
})

test('paused, by whom and why; and what else is in its way', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause('seen', { by: 'ada', reason: 'the carrier is down' })
  const id = await publishOne(database, bus)
  const { reason, sentence, also } = await untilReason(bus, id, 'seen', 'paused')
  expect(reason).toEqual({
    reason: 'paused',
    since: expect.any(Date) as Date,
    by: 'ada',
    why: 'the carrier is down',
  })
  expect(sentence).toMatch(/^The subscription is paused since .*Z by ada: the carrier is down\.$/)
  expect(also).toMatchObject([{ reason: 'waiting' }])
  // A tenant sees that it is paused.
  const [mine] = (await bus.tenant('acme').explain(id)).subscriptions
  expect(mine?.reason).toEqual({
    reason: 'paused',
    since: expect.any(Date) as Date,
    by: undefined,
    why: undefined,
  })
  expect(await bus.tenant('rival').explain(id)).toMatchObject({ isInLog: false, subscriptions: [] })
})

test('the circuit breaker is open until', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'down', events: ['note'], retry: { maxAttempts: 2, delaySeconds: 600 } },
    circuitBreaker: { windowSize: 5, failureRatio: 0.5, probeSeconds: 600 },
    handler: () => {
      throw new Error('refused')
    },
  })
  await bus.start()
  await publish(database, bus, ...Array.from({ length: 10 }, (_, n) => ({ ...note, tenantId: `t${n}` })))
  await until('the breaker is open', async () => (await bus.subscriptions.list())[0]?.circuit !== undefined)
  const id = await publishOne(database, bus)
  const { reason } = await untilReason(bus, id, 'down', 'circuit-open')
  expect(reason).toEqual({
    ...{ reason: 'circuit-open', since: expect.any(Date) as Date, until: expect.any(Date) as Date },
    error: expect.stringContaining('refused') as string,
  })
  const [mine] = (await bus.tenant('acme').explain(id)).subscriptions
  expect(mine?.reason).toMatchObject({ reason: 'circuit-open', error: undefined })
})

test('a key: blocked and parked by which event, and behind earlier events', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const { handler, open } = gate()
  const fail = (): never => {
    throw new Error('refused')
  }
  const ordered = { events: ['note'], ordered: true, retry: { ...retryAtOnce, maxAttempts: 1 } } as const
  bus.subscribe({ ...ordered, name: 'blocks', handler: fail })
  bus.subscribe({ ...ordered, name: 'parks', onKeyFailure: 'park', handler: fail })
  bus.subscribe({ ...ordered, name: 'slow', handler })
  await bus.start()
  const keyed = { ...note, orderingKey: 'k' }
  const [first = '', second = '', third = ''] = await publish(database, bus, keyed, keyed, keyed)
  const blocked = await untilReason(bus, second, 'blocks', 'key-blocked')
  expect(blocked).toMatchObject({
    state: 'waiting',
    reason: { orderingKey: 'k', byEventId: first, since: expect.any(Date) as Date },
  })
  expect(blocked.sentence).toContain(`Its key k is blocked by event ${first}`)
  const parked = await untilReason(bus, second, 'parks', 'key-parked')
  expect(parked).toMatchObject({ state: 'dead', reason: { orderingKey: 'k', byEventId: first } })
  expect(await explained(bus, first, 'blocks')).toMatchObject({
    state: 'dead',
    reason: { reason: 'dead', attempts: 1 },
  })
  await untilReason(bus, first, 'slow', 'delivering')
  const [fourth = ''] = await publish(database, bus, keyed)
  const behind = await untilReason(bus, fourth, 'slow', 'behind-key')
  expect(behind.reason).toEqual({
    ...{ reason: 'behind-key', orderingKey: 'k', firstEventId: first, aheadCount: 3, isPartial: false },
  })
  expect(behind.sentence).toBe('Waiting behind 3 events of its key k.')
  expect(third).not.toBe('')
  open()
})

test('held back for one subscription by a lock', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const { handler, open } = gate()
  bus.subscribe({ name: 'in-order', events: ['note'], ordered: true, handler })
  await bus.start()
  const keyed = { ...note, orderingKey: 'k' }
  const first = await publishOne(database, bus, keyed)
  await untilReason(bus, first, 'in-order', 'delivering')
  const session = await openSession(database)
  await session.rows('begin')
  await session.rows('select 1 from bus.ordered_keys for update')
  const second = await publishOne(database, bus, keyed)
  await until(
    'it is held',
    async () => (await database.count('select count(*) from bus.outbox where position < 0')) > 0,
  )
  const held = await explained(bus, second, 'in-order')
  expect(held).toMatchObject({ state: 'waiting', reason: { reason: 'held' } })
  expect(await bus.events.find({ status: 'waiting' })).toMatchObject([{ id: second }])
  await session.rows('rollback')
  open()
  await untilReason(bus, second, 'in-order', 'delivered')
})

test('no running process has the subscription; the running code does not cover the event', async () => {
  const database = await createTestDatabase()
  const before = testBus(database.url)
  before.subscribe({ name: 'gone', events: ['note'], handler: () => {} })
  before.subscribe({ name: 'narrowed', events: ['note'], handler: () => {} })
  await before.start()
  await before.stop()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'narrowed', events: ['payment.paid'], handler: () => {} })
  await bus.start()
  const id = await publishOne(database, bus)
  const gone = await untilReason(bus, id, 'gone', 'no-instance')
  expect(gone).toMatchObject({
    sentence: 'No running process has this subscription: start payment-service.',
    reason: { service: 'payment-service' },
  })
  const { reason } = await untilReason(bus, id, 'narrowed', 'not-covered')
  expect(reason).toEqual({
    ...{ reason: 'not-covered', since: expect.any(Date) as Date },
    versions: [expect.stringMatching(/^\d+\./) as string],
  })
})

test('behind others of its tenant; at the limit of its tenant; waiting with nothing in its way', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const { handler, open } = gate()
  let calls = 0
  bus.subscribe({ name: 'one-by-one', events: ['note'], concurrency: 1, batchSize: 1, handler })
  bus.subscribe({
    ...{ name: 'limited', events: ['note'], tenantConcurrency: 1, batchSize: 1, concurrency: 10 },
    handler: async () => {
      calls += 1
      // So slow that few events of a tenant are kept in the process.
      if (calls <= 2) await new Promise((resolve) => setTimeout(resolve, 500))
      else await handler()
    },
  })
  await bus.start()
  await publish(database, bus, note, note)
  await until('its handler is known to be slow', () => calls === 2)
  const ids = await publish(database, bus, ...Array.from({ length: 50 }, () => note))
  const last = ids.at(-1) ?? ''
  const behind = await untilReason(bus, last, 'one-by-one', 'behind-tenant')
  expect(behind.reason).toMatchObject({ isPartial: false })
  expect(behind.sentence).toMatch(/^Waiting behind (?:4\d|50) events of its tenant\.$/)
  // Some are fetched, and put off.
  let limited: SubscriptionExplanation | undefined
  await until('some are put off', async () => {
    for (const id of ids) {
      const found = await explained(bus, id, 'limited')
      if (found.reason.reason === 'tenant-limit') limited = found
    }
    return limited !== undefined
  })
  expect(limited?.reason).toEqual({ reason: 'tenant-limit', limit: 1, until: expect.any(Date) as Date })
  expect(limited?.sentence).toMatch(
    /^Its tenant is at its limit of 1 handler at a time; put off until .*Z\.$/,
  )
  const [mine] = (await bus.tenant('acme').explain(last, 'one-by-one')).subscriptions
  expect(mine?.reason.reason).toBe('behind-tenant')
  const other = await publishOne(database, bus, { ...note, tenantId: 'rival' })
  await untilReason(bus, other, 'one-by-one', 'waiting')
  open()
})

test('being delivered, since when and by which process; and with an overdue heartbeat', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const { handler, open } = gate()
  bus.subscribe({ name: 'slow', events: ['note'], handler })
  await bus.start()
  const id = await publishOne(database, bus)
  const { reason, sentence } = await untilReason(bus, id, 'slow', 'delivering')
  expect(reason).toMatchObject({
    ...{ isOverdue: false, eventCount: 1, since: expect.any(Date) as Date },
    instances: [{ pid: process.pid, service: 'payment-service', version: expect.any(String) as string }],
  })
  expect(sentence).toMatch(new RegExp(`^Being delivered since .*Z by .*, process ${process.pid}\\.$`))
  const [mine] = (await bus.tenant('acme').explain(id)).subscriptions
  expect(mine?.reason).toMatchObject({ reason: 'delivering', instances: [], eventCount: undefined })
  await database.rows(
    `update pgboss.job set heartbeat_on = now() - interval '1 hour' where name = 'bus.slow' and state = 'active'`,
  )
  const overdue = await explained(bus, id, 'slow')
  expect(overdue.reason).toMatchObject({ reason: 'delivering', isOverdue: true })
  expect(overdue.sentence).toContain('Its heartbeat is overdue')
  open()
})

test('retrying until, after which error; dead since, after which error', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const fail = (): never => {
    throw Object.assign(new Error('carrier 503'), { code: 'E_CARRIER' })
  }
  bus.subscribe({
    name: 'later',
    events: ['note'],
    retry: { maxAttempts: 2, delaySeconds: 600 },
    handler: fail,
  })
  bus.subscribe({ name: 'never', events: ['note'], retry: { ...retryAtOnce, maxAttempts: 2 }, handler: fail })
  await bus.start()
  const id = await publishOne(database, bus)
  const retrying = await untilReason(bus, id, 'later', 'retrying')
  const error = { name: 'Error', message: 'carrier 503', code: 'E_CARRIER', at: expect.any(Date) as Date }
  expect(retrying.reason).toEqual({ reason: 'retrying', attempts: 1, until: expect.any(Date) as Date, error })
  expect(retrying.sentence).toMatch(
    /^Retrying after 1 attempt, next .*Z: Error \(E_CARRIER\): carrier 503\.$/,
  )
  const dead = await untilReason(bus, id, 'never', 'dead')
  expect(dead.reason).toEqual({ reason: 'dead', attempts: 2, since: expect.any(Date) as Date, error })
  expect(dead.sentence).toMatch(
    /^Dead letter since .*Z, after 2 attempts: Error \(E_CARRIER\): carrier 503\.$/,
  )
  expect((await bus.explain(id)).sentence).toBe('Dead for never; retrying for later.')
  // Paused meanwhile, it waits for both.
  await bus.subscriptions.pause('later')
  expect(await explained(bus, id, 'later')).toMatchObject({
    reason: { reason: 'retrying' },
    also: [{ reason: 'paused' }],
  })
})

test('expired, erased, and delivered: when, by which attempt, by which process', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let calls = 0
  bus.subscribe({ name: 'once', events: ['payment.refunded'], handler: () => {} })
  bus.subscribe({
    ...{ name: 'twice', events: ['payment.refunded'], retry: retryAtOnce },
    handler: () => {
      calls += 1
      if (calls === 1) throw new Error('not yet')
    },
  })
  bus.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
  await bus.start()
  const refunded = { type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: '1' } } as const
  const id = await publishOne(database, bus, refunded)
  const twice = await untilReason(bus, id, 'twice', 'delivered')
  const [instance] = await database.rows('select id from bus.instances')
  expect(twice.reason).toEqual({
    ...{
      reason: 'delivered',
      at: expect.any(Date) as Date,
      attempt: 2,
      durationMs: expect.any(Number) as number,
    },
    instanceId: instance?.['id'],
  })
  expect((await untilReason(bus, id, 'once', 'delivered')).reason).toMatchObject({
    attempt: 1,
    instanceId: undefined,
  })
  await bus.subscriptions.pause('seen')
  const expired = await publishOne(database, bus, { ...note, expiresAt: new Date(Date.now() + 300) })
  const erased = await publishOne(database, bus, { ...note, subject: 'someone' })
  await untilReason(bus, erased, 'seen', 'paused')
  await bus.erase({ tenantId: 'acme', subject: 'someone', by: 'ada' })
  await bus.subscriptions.resume('seen')
  expect(await untilReason(bus, expired, 'seen', 'expired')).toMatchObject({
    ...{ state: 'expired', reason: { at: expect.any(Date) as Date } },
  })
  expect(await untilReason(bus, erased, 'seen', 'erased')).toMatchObject({ state: 'erased' })
})
