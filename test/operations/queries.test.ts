import { describe, expect, onTestFinished, test } from 'vitest'
import { binOf } from '../../src/delivery/ledger/rollups.ts'
import { createBus, type Queries } from '../../src/index.ts'
import { publish } from '../support/ledger.ts'
import { paymentEvents, testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'

const note = { type: 'note', payload: 1 } as const
const refund = {
  type: 'payment.refunded',
  tenantId: 'acme',
  payload: { paymentId: 'p' },
  orderingKey: 'k',
} as const

/** A database in which events are in every state that a view is about, and two processes, one of which has stopped. */
async function makeStates(): Promise<{
  database: TestDatabase
  queries: Queries
  ids: readonly string[]
  stop: () => Promise<void>
}> {
  const database = await createTestDatabase()
  const idle = testBus(database.url, { source: 'idle-service' })
  idle.subscribe({ name: 'idle', events: ['note'], handler: () => {} })
  await idle.start()
  await idle.stop()
  const bus = testBus(database.url)
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  const once = { maxAttempts: 1 }
  bus.subscribe({ name: 'paused', events: ['note'], handler: () => {} })
  bus.subscribe({
    ...{ name: 'retried', events: ['note'], circuitBreaker: false },
    retry: { maxAttempts: 3, delaySeconds: 1800, backoff: false },
    handler: () => {
      throw Object.assign(new Error('no answer'), { code: 'E_CARRIER' })
    },
  })
  bus.subscribe({
    ...{ name: 'doomed', events: ['note'], circuitBreaker: false, retry: once },
    handler: ({ payload }) => {
      throw new TypeError(`account ${String(payload)} is unknown`)
    },
  })
  for (const onKeyFailure of ['block', 'park'] as const)
    bus.subscribe({
      ...{
        name: `${onKeyFailure}ing`,
        events: ['payment.refunded'],
        ordered: true,
        onKeyFailure,
        retry: once,
      },
      handler: () => {
        throw new RangeError('no such payment')
      },
    })
  bus.subscribe({
    ...{ name: 'busy', events: ['payment.paid'] },
    handler: async () => released,
  })
  await bus.start()
  await bus.subscriptions.pause('paused', { by: 'ann', reason: 'a fault' })
  const of = (tenantId: string) => ({ ...note, tenantId })
  const ids = await publish(
    database,
    bus,
    { ...of('acme'), eventId: 'pay_1', correlationId: 'flow', subject: 'customer 1' },
    { ...of('acme'), payload: 22, correlationId: 'flow' },
    { ...of('acme'), payload: 333 },
    { ...of('rival'), idempotencyKey: 'pay_1' },
    of('rival'),
  )
  await publish(database, bus, refund, refund, refund, refund)
  const paid = {
    type: 'payment.paid',
    tenantId: 'acme',
    payload: { paymentId: 'p', amountCents: 1 },
  } as const
  await publish(database, bus, paid, paid)
  const later = { ...of('rival'), availableIn: { seconds: 3600 } }
  await publish(database, bus, later, { ...later, orderingKey: 'k', availableIn: { seconds: 7200 } })
  const { queries } = bus
  await until('everything is where it stays', async () => {
    const rows = await queries.depth()
    const sum = (name: 'activeEvents' | 'retryingEvents' | 'deadEvents' | 'pausedEvents'): number =>
      rows.reduce((all, row) => all + row[name], 0)
    return (
      sum('activeEvents') === 2 &&
      sum('retryingEvents') === 5 &&
      sum('deadEvents') === 7 &&
      sum('pausedEvents') === 5
    )
  })
  return {
    database,
    queries,
    ids,
    async stop() {
      release()
      await bus.stop()
    },
  }
}

const nothing = {
  readyJobs: 0,
  readyEvents: 0,
  activeJobs: 0,
  activeEvents: 0,
  retryingEvents: 0,
  deferredEvents: 0,
  pausedEvents: 0,
  behindEvents: 0,
  parkedEvents: 0,
  deadEvents: 0,
  scheduledEvents: 0,
  isPartial: false,
  time: expect.any(Date) as Date,
}

test('each view says of each state what is true, in jobs and in events', async () => {
  const { database, queries, ids, stop } = await makeStates()
  expect(await queries.depth()).toEqual([
    { ...nothing, subscription: 'blocking', deadEvents: 1, behindEvents: 3 },
    { ...nothing, subscription: 'busy', activeJobs: 1, activeEvents: 2 },
    { ...nothing, subscription: 'doomed', deadEvents: 5 },
    { ...nothing, subscription: 'idle', readyJobs: 1, readyEvents: 5 },
    { ...nothing, subscription: 'parking', deadEvents: 1, parkedEvents: 3 },
    { ...nothing, subscription: 'paused', pausedEvents: 5 },
    { ...nothing, subscription: 'retried', retryingEvents: 5 },
    { ...nothing, subscription: undefined, scheduledEvents: 2 },
  ])
  expect(await queries.depth({ subscription: 'idle' })).toMatchObject([
    { subscription: 'idle', readyEvents: 5 },
  ])
  expect(await queries.depth({ limit: 2 })).toHaveLength(2)

  const lags = new Map((await queries.lag()).map((row) => [row.subscription, row]))
  expect([...lags].filter(([, { lagSeconds }]) => lagSeconds > 0).map(([name]) => name)).toEqual(['idle'])
  expect([...lags].filter(([, row]) => row.pausedSeconds > 0).map(([name]) => name)).toEqual(['paused'])
  const { lagSeconds = 0, dueAt } = lags.get('idle') ?? {}
  expect(lagSeconds).toBeCloseTo((Date.now() - (dueAt?.getTime() ?? 0)) / 1000, 0)
  expect(lags.get(undefined)).toMatchObject({ lagSeconds: 0, dueAt: undefined })

  expect(await queries.retries()).toMatchObject([
    {
      ...{
        subscription: 'retried',
        attempts: 1,
        errorName: 'Error',
        errorCode: 'E_CARRIER',
        retryingEvents: 5,
      },
      ...{ dueEvents: 0, dueIn1Minute: 0, dueIn5Minutes: 0, dueIn1Hour: 5, isPartial: false },
    },
  ])
  expect(await queries.retries({ subscription: 'doomed' })).toEqual([])

  const [active, ...others] = await queries.active()
  expect(others).toEqual([])
  expect(active).toMatchObject({ subscription: 'busy', eventCount: 2, attempt: 1, isLost: false })
  expect(active?.runningSeconds).toBeGreaterThan(0)
  expect(active?.heartbeatSecondsAgo).toBeLessThan(30)
  await database.rows(
    `update pgboss.job set heartbeat_on = now() - interval '1 hour' where name = 'bus.busy' and state = 'active'`,
  )
  expect(await queries.active()).toMatchObject([
    { isLost: true, heartbeatSecondsAgo: expect.closeTo(3600, -1) as number },
  ])

  expect(await queries.deadByError()).toMatchObject([
    {
      ...{ subscription: 'doomed', errorName: 'TypeError', deadEvents: 5, tenantCount: 2, isPartial: false },
      errorMessage: expect.stringMatching(/^account \d+ is unknown$/) as string,
      eventId: expect.toSatisfy((id: string) => ids.includes(id)) as string,
    },
    { errorName: 'RangeError', errorMessage: 'no such payment', deadEvents: 1, tenantCount: 1 },
    { errorName: 'RangeError', deadEvents: 1 },
  ])
  expect(await queries.deadByError({ subscription: 'parking' })).toMatchObject([{ subscription: 'parking' }])
  for (const read of [
    ...[
      queries.depth,
      queries.lag,
      queries.throughput,
      queries.latency,
      queries.deadByError,
      queries.retries,
    ],
    ...[queries.active, queries.subscriptionState, queries.blockedKeys, queries.recentFailures],
  ])
    await expect(read({ subscription: 'none' })).rejects.toMatchObject({ code: 'BUS_SUBSCRIPTION_NOT_FOUND' })

  const failures = await queries.recentFailures()
  const counted = (name: string) => failures.filter((row) => row.subscription === name)
  expect(counted('retried').map(({ state, attempt }) => `${state}, ${attempt}`)).toEqual(
    Array(5).fill('retrying, 1'),
  )
  expect(counted('doomed').map(({ state }) => state)).toEqual(Array(5).fill('dead'))
  expect(counted('blocking')).toMatchObject([
    { state: 'blocked', tenantId: 'acme', errorMessage: 'no such payment' },
  ])
  expect(counted('parking')).toMatchObject([{ state: 'parked', instanceId: expect.any(String) as string }])
  expect(failures).toHaveLength(12)
  expect(failures.map(({ time }) => time.getTime())).toEqual(
    failures.map(({ time }) => time.getTime()).toSorted((a, b) => b - a),
  )

  expect(await queries.tenants()).toEqual([
    {
      ...{ tenantId: 'acme', recentEvents: 9, recentShare: 9 / 13, recentSince: expect.any(Date) as Date },
      ...{ waitingEvents: 12, waitingShare: 12 / 16, scheduledEvents: 0, retryingEvents: 3, deadEvents: 5 },
      isPartial: false,
    },
    {
      ...{ tenantId: 'rival', recentEvents: 4, recentShare: 4 / 13, recentSince: expect.any(Date) as Date },
      ...{ waitingEvents: 4, waitingShare: 4 / 16, scheduledEvents: 2, retryingEvents: 2, deadEvents: 2 },
      isPartial: false,
    },
  ])

  const keys = await queries.blockedKeys()
  const key = {
    tenantId: 'acme',
    orderingKey: 'k',
    attempts: 1,
    errorName: 'RangeError',
    errorMessage: 'no such payment',
    behindEvents: 3,
  }
  expect(keys.toSorted((a, b) => (a.subscription < b.subscription ? -1 : 1))).toMatchObject([
    { ...key, subscription: 'blocking', state: 'blocked' },
    { ...key, subscription: 'parking', state: 'parked' },
  ])
  expect(await queries.blockedKeys({ subscription: 'parking' })).toHaveLength(1)

  const scheduled = await queries.scheduled()
  expect(scheduled).toMatchObject([
    { tenantId: 'rival', type: 'note', orderingKey: undefined },
    { tenantId: 'rival', type: 'note', orderingKey: 'k' },
  ])
  expect(scheduled[0]?.dueInSeconds).toBeCloseTo(3600, -2)

  expect(await queries.subscriptionState()).toMatchObject([
    { subscription: 'blocking', state: 'active', instanceCount: 1, service: 'payment-service' },
    { subscription: 'busy', state: 'active', patterns: ['payment.paid'] },
    { subscription: 'doomed', state: 'active' },
    { subscription: 'idle', state: 'unserved', instanceCount: 0, service: 'idle-service' },
    { subscription: 'parking', state: 'active' },
    {
      subscription: 'paused',
      state: 'paused',
      pausedBy: 'ann',
      pauseReason: 'a fault',
      pausedAt: expect.any(Date) as Date,
    },
    { subscription: 'retried', state: 'active', circuitOpenedAt: undefined },
  ])
  expect(await queries.instances()).toMatchObject([
    {
      service: 'payment-service',
      pid: process.pid,
      isLive: true,
      subscriptionCount: 6,
      subscriptions: ['blocking', 'busy', 'doomed', 'parking', 'paused', 'retried'],
    },
  ])
  await database.rows(`update bus.instances set seen_at = now() - interval '5 minutes'`)
  expect(await queries.instances()).toMatchObject([
    { isLive: false, seenSecondsAgo: expect.closeTo(300, -1) as number },
  ])
  expect((await queries.subscriptionState()).map(({ state }) => state)).toContain('unserved')

  expect(await queries.eventsByKey({ key: 'pay_1' })).toMatchObject([
    { tenantId: 'rival', kind: 'idempotency_key', eventId: ids[3] },
    { tenantId: 'acme', kind: 'event_id', eventId: ids[0] },
  ])
  const byKey = async (key: string) =>
    (await queries.eventsByKey({ key, tenantId: 'acme' })).map(({ kind, eventId }) => [kind, eventId])
  expect(await byKey('pay_1')).toEqual([['event_id', ids[0]]])
  expect(await byKey('flow')).toEqual([
    ['correlation_id', ids[1]],
    ['correlation_id', ids[0]],
  ])
  expect(await byKey('customer 1')).toEqual([['subject', ids[0]]])
  expect(await byKey('nothing')).toEqual([])
  expect(
    await database.rows(
      `select event_id from bus.v_events_by_key where tenant_id = 'acme' and key = 'pay_1'`,
    ),
  ).toEqual([{ event_id: ids[0] }])

  const storage = new Map((await queries.storage()).map((row) => [row.name, row]))
  expect(storage.get('bus.events_default')).toMatchObject({ parent: 'events', defaultRows: 0 })
  expect([...storage.values()].find(({ queue }) => queue === 'bus.idle')?.totalBytes).toBeGreaterThan(8192)
  const [month] = await database.rows(
    `select 'bus.events' || to_char(now() at time zone 'utc', '_YYYY_MM') as name`,
  )
  const current = storage.get(String(month?.['name']))
  expect(current?.rangeFrom?.getTime()).toBeLessThan(Date.now())
  expect(current?.rangeTo?.getTime()).toBeGreaterThan(Date.now())

  // The counts are written by then.
  await stop()
  const after = testBus(database.url).queries
  const throughput = await after.throughput()
  const sum = (metric: string, name?: string): number =>
    throughput
      .filter((row) => row.metric === metric && row.subscription === name)
      .reduce((all, { value }) => all + value, 0)
  expect(sum('published')).toBe(11)
  expect([sum('failed', 'doomed'), sum('dead', 'doomed'), sum('delivered', 'doomed')]).toEqual([5, 5, 0])
  expect([sum('failed', 'retried'), sum('dead', 'retried')]).toEqual([5, 0])
  expect(sum('delivered', 'busy')).toBe(2)
  expect(
    await after.throughput({
      to: new Date(Date.now() - 3_600_000),
      from: new Date(Date.now() - 7_200_000),
    }),
  ).toEqual([])
  const latency = await after.latency({ subscription: 'busy', from: new Date(Date.now() - 600_000) })
  const run = latency.filter(({ metric }) => metric === 'run')
  expect(run.reduce((all, { eventCount }) => all + eventCount, 0)).toBe(2)
  expect(run.flatMap(({ bins }) => bins).reduce((all, count) => all + count, 0)).toBe(2)
  for (const { p50Ms, p95Ms, p99Ms } of latency) {
    expect(p50Ms).toBeLessThanOrEqual(p95Ms)
    expect(p95Ms).toBeLessThanOrEqual(p99Ms)
  }
  // The handlers waited until the other views were read.
  expect(run[0]?.p50Ms).toBeGreaterThan(50)
})

test('a retry that is due may run: it is ready, due or waiting, and no longer counted as retrying', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const retry = { maxAttempts: 3, delaySeconds: 1800, backoff: false }
  bus.subscribe({
    ...{ name: 'failing', events: ['note'], circuitBreaker: false, retry },
    handler: () => {
      throw new Error('no answer')
    },
  })
  await bus.start()
  await publish(database, bus, ...['acme', 'acme', 'rival'].map((tenantId) => ({ ...note, tenantId })))
  const { queries } = testBus(database.url)
  const counts = async () => {
    const [depth] = await queries.depth({ subscription: 'failing' })
    const retries = await queries.retries()
    const tenants = await queries.tenants()
    const sum = <Row>(rows: readonly Row[], of: (row: Row) => number): number =>
      rows.reduce((all, row) => all + of(row), 0)
    return {
      ready: [
        depth?.readyEvents,
        sum(retries, (row) => row.dueEvents),
        sum(tenants, (row) => row.waitingEvents),
      ],
      retrying: [
        depth?.retryingEvents,
        ...[sum(retries, (row) => row.retryingEvents), sum(tenants, (row) => row.retryingEvents)],
      ],
    }
  }
  await until('all wait for another attempt', async () => (await counts()).retrying.join() === '3,3,3')
  expect((await counts()).ready).toEqual([0, 0, 0])
  await bus.stop()
  await database.rows(
    `with due as (select id from pgboss.job where name = 'bus.failing' and state < 'active' order by id limit 2),
     moved as (update pgboss.job set start_after = now() - interval '1 second' where name = 'bus.failing' and id in (select id from due))
     update bus.failing set next_attempt_at = now() - interval '1 second' where job_id in (select id from due)`,
  )
  expect(await counts()).toEqual({ ready: [2, 2, 2], retrying: [1, 1, 1] })
})

test('what is not dispatched is the lag of the relay, and of the subscriptions that its type belongs to', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'notes', events: ['note'], handler: () => {} })
  bus.subscribe({ name: 'payments', events: ['payment.*'], handler: () => {} })
  await bus.start()
  await bus.stop()
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key) values
       ('acme', 'note', 'psql', '1', null), ('acme', 'note', 'psql', '1', 'k')`,
  )
  const operator = testBus(database.url)
  await until('time has passed', async () => ((await operator.queries.lag()).at(-1)?.lagSeconds ?? 0) > 0.05)
  const [notes, payments, relay] = await operator.queries.lag()
  expect(notes).toMatchObject({
    subscription: 'notes',
    lagSeconds: expect.closeTo(relay?.lagSeconds ?? -1, 2) as number,
  })
  expect(payments).toMatchObject({ subscription: 'payments', lagSeconds: 0 })
  expect((await operator.queries.depth()).at(-1)).toEqual({
    ...nothing,
    subscription: undefined,
    readyEvents: 2,
  })
  expect(await operator.queries.tenants()).toMatchObject([{ tenantId: 'acme', waitingEvents: 2 }])
})

test('an event that was dispatched late has been due since it was published', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'late', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause('late')
  await publish(database, bus, { ...note, tenantId: 'acme' })
  await until('it waits', async () => (await bus.queries.depth())[0]?.pausedEvents === 1)
  // Its job was made half a minute ago, and its event an hour ago.
  await database.rows(
    `update pgboss.job set start_after = now() - interval '30 s',
       id = overlay(overlay(bus.uuid_v7_floor(now() - interval '1 hour')::text placing '8' from 15) placing 'b' from 20)::uuid
     where name = 'bus.late'`,
  )
  const [paused] = await bus.queries.lag()
  expect(paused).toMatchObject({ lagSeconds: 0, pausedSeconds: expect.closeTo(3600, -1) as number })
  await database.rows(`update bus.subscriptions set paused_at = null`)
  expect(await bus.queries.lag({ subscription: 'late' })).toMatchObject([
    { lagSeconds: expect.closeTo(3600, -1) as number, pausedSeconds: 0 },
  ])
  // After an attempt it is due when the attempt is.
  await database.rows(`update pgboss.job set state = 'retry', retry_count = 1 where name = 'bus.late'`)
  expect((await bus.queries.lag())[0]?.lagSeconds).toBeCloseTo(30, -1)
})

test('a subscription whose circuit breaker is open says so, and since when', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'broken', events: ['note'], circuitBreaker: { windowSize: 10, probeSeconds: 60 } },
    retry: { maxAttempts: 5, delaySeconds: 60 },
    handler: () => {
      throw new Error('down')
    },
  })
  await bus.start()
  await publish(database, bus, ...Array.from({ length: 30 }, () => ({ ...note, tenantId: 'acme' })))
  await until(
    'the breaker is open',
    async () => (await bus.queries.subscriptionState())[0]?.state === 'circuit open',
  )
  expect(await bus.queries.subscriptionState()).toMatchObject([
    {
      circuitReason: expect.stringContaining('down') as string,
      circuitOpenedAt: expect.any(Date) as Date,
      circuitProbeAt: expect.any(Date) as Date,
    },
  ])
})

test('the views are read where pg-boss has another schema', async () => {
  const { url, rows } = await createTestDatabase({ empty: true })
  const bus = createBus({
    database: url,
    events: paymentEvents,
    source: 'test',
    bossSchema: 'Jobs of the bus',
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  await bus.migrate()
  bus.subscribe({ name: 'one', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause('one')
  await bus.tryPublish({ ...note, tenantId: 'acme' })
  await until(
    'it waits',
    async () => (await bus.queries.depth({ subscription: 'one' }))[0]?.pausedEvents === 1,
  )
  const views = await rows(
    `select viewname from pg_views where schemaname = 'bus' and viewname like 'v\\_%' order by viewname`,
  )
  expect(views).toHaveLength(15)
  for (const { viewname } of views) await rows(`select * from bus.${String(viewname)}`)
  expect((await bus.queries.storage()).map(({ name }) => name)).toContain('Jobs of the bus.job_common')
})

describe('percentiles of bins', () => {
  let database: TestDatabase
  const percentile = async (bins: readonly number[], fraction: number): Promise<number | null> => {
    const [row] = await database.rows('select bus.percentile($1::bigint[], $2::float8) as ms', [
      bins,
      fraction,
    ])
    return (row?.['ms'] ?? null) as number | null
  }

  test('are interpolated in their bin, and null without durations', async () => {
    database = await createTestDatabase()
    expect(await percentile([], 0.5)).toBeNull()
    expect(await percentile([0, 0], 0.5)).toBeNull()
    expect(await percentile([4], 0.5)).toBeCloseTo(Math.SQRT2 / 2, 6)
    // 100 durations from 4 ms to 5.66 ms.
    expect(await percentile([0, 0, 0, 0, 100], 0)).toBeCloseTo(4, 6)
    expect(await percentile([0, 0, 0, 0, 100], 1)).toBeCloseTo(4 * Math.SQRT2, 6)
    expect(await percentile([50, 0, 0, 0, 50], 0.5)).toBeCloseTo(Math.SQRT2, 6)
    expect(await percentile([50, 0, 0, 0, 50], 0.75)).toBeCloseTo(2 ** (4.5 / 2), 6)
    await expect(database.rows(`select bus.percentile('{1}', 1.5)`)).rejects.toMatchObject({ code: '22023' })
  })

  test('of merged bins are within a bin of those of the durations', async () => {
    database = await createTestDatabase()
    const durations = Array.from({ length: 3000 }, (_, n) => 1.5 + ((n * 7919) % 3000) ** 1.5 / 10)
    const parts = [0, 1, 2].map((part) => {
      const bins: number[] = []
      for (const [n, ms] of durations.entries()) {
        if (n % 3 !== part) continue
        const bin = binOf(ms)
        while (bins.length <= bin) bins.push(0)
        bins[bin] = (bins[bin] ?? 0) + 1
      }
      return bins
    })
    const sorted = durations.toSorted((a, b) => a - b)
    for (const fraction of [0.5, 0.95, 0.99]) {
      const [row] = await database.rows(
        `select bus.percentile(bus.merge_bins(b.bins), $2::float8) as ms from (
           select array(select x::bigint from jsonb_array_elements_text(p.part) x) as bins from jsonb_array_elements($1::jsonb) as p (part)) b`,
        [JSON.stringify(parts), fraction],
      )
      const exact = sorted[Math.floor(fraction * sorted.length)] ?? 0
      const ratio = Number(row?.['ms']) / exact
      expect(ratio).toBeGreaterThan(1 / Math.SQRT2)
      expect(ratio).toBeLessThan(Math.SQRT2)
    }
  })
})

test('what a filter does not have is refused before anything is read', async () => {
  // Nobody listens there.
  const { queries } = testBus('postgres://nobody@127.0.0.1:1/nowhere')
  const refused = { code: 'BUS_INVALID_OPTION' }
  await expect(queries.depth({ subscriptions: 'x' } as never)).rejects.toMatchObject(refused)
  await expect(queries.depth({ subscription: '' })).rejects.toMatchObject(refused)
  await expect(queries.depth({ limit: 0 })).rejects.toMatchObject(refused)
  await expect(queries.storage({ limit: 10_001 })).rejects.toMatchObject(refused)
  await expect(queries.tenants({ subscription: 'x' } as never)).rejects.toMatchObject(refused)
  await expect(queries.throughput({ from: 'yesterday' as never })).rejects.toMatchObject(refused)
  await expect(queries.latency({ to: new Date(Number.NaN) })).rejects.toMatchObject(refused)
  await expect(queries.eventsByKey({} as never)).rejects.toMatchObject(refused)
  await expect(queries.eventsByKey({ key: 'a', tenantId: '' })).rejects.toMatchObject(refused)
  await expect(queries.active(null as never)).rejects.toMatchObject(refused)
})
