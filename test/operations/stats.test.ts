import { expect, test } from 'vitest'
import type { StatsOptions } from '../../src/index.ts'
import { createDatabase, type Database } from '../../src/database/database.ts'
import { pruneHours, rollUpHours } from '../../src/delivery/ledger/hourly-rollups.ts'
import { percentileOf } from '../../src/delivery/ledger/percentiles.ts'
import { createTenantCounts } from '../../src/delivery/ledger/tenant-counts.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { publish, retryAtOnce } from '../support/ledger.ts'
import { createLogin } from '../support/roles.ts'

/** Two subscriptions, and their minutes of 2026-11-02, from 10:00. */
async function fill(database: TestDatabase): Promise<void> {
  await database.rows(
    `insert into bus.subscriptions (id, name, service, patterns, options) overriding system value values
       (1, 'ledger', 'shop', '{note}', '{}'), (2, 'mail', 'shop', '{note}', '{}')`,
  )
  // Of each subscription, two processes. Waits of 1 s (bin 19), and of 32 s (bin 29); handlers of 8 ms (bin 6).
  await database.rows(
    `insert into bus.rollups (minute, subscription_id, instance_id, published, delivered, failed, dead, expired, wait_bins, run_bins)
     select timestamptz '2026-11-02T10:00:00Z' + m * interval '1 minute', s, ('00000000-0000-0000-0000-00000000000' || i)::uuid,
       case when s = 0 then 10 else 0 end, case when s = 0 then 0 else 9 end, case when s = 1 then 3 else 0 end, case when s = 1 then 1 else 0 end, 0,
       case when s = 0 then '{}' when s = 2 and i = 2 then array_fill(0, array[29]) || 10 else array_fill(0, array[19]) || 10 end,
       case when s = 0 then '{}' else array_fill(0, array[6]) || 12 end
     from generate_series(0, 119) m, generate_series(0, 2) s, generate_series(1, 2) i`,
  )
}

function open({ url }: TestDatabase): Database {
  return createDatabase(url, recordingLogger())
}

const from = new Date('2026-11-02T10:00:00Z')
const to = new Date('2026-11-02T12:00:00Z')

test('counts, rates and percentiles of known minutes are right, by minute, hour, day and subscription', async () => {
  const database = await createTestDatabase()
  await fill(database)
  const bus = testBus(database.url)
  const minutes = await bus.stats({ from, to, by: 'minute' })
  expect(minutes.points).toHaveLength(120)
  expect(minutes.points[7]).toMatchObject({
    ...{
      at: new Date('2026-11-02T10:07:00Z'),
      publishedCount: 20,
      deliveredCount: 36,
      failedAttemptCount: 6,
      deadCount: 2,
    },
  })
  const hours = await bus.stats({ from, to })
  expect(hours).toMatchObject({ by: 'hour', from, to, isPartial: false })
  expect(hours.points.map(({ at, deliveredCount }) => [at?.toISOString(), deliveredCount])).toEqual([
    ['2026-11-02T10:00:00.000Z', 60 * 36],
    ['2026-11-02T11:00:00.000Z', 60 * 36],
  ])
  const { total } = hours
  expect(total).toMatchObject({
    publishedCount: 2400,
    deliveredCount: 4320,
    failedAttemptCount: 720,
    deadCount: 240,
    expiredCount: 0,
  })
  expect(total.failureRate).toBeCloseTo(720 / 5040)
  expect(total.retryRate).toBeCloseTo(480 / 5040)
  expect(total.deadLetterRate).toBeCloseTo(240 / 4560)
  // Three quarters waited a second; the others 32 s.
  expect(total.waitMs?.p50).toBeGreaterThanOrEqual(724)
  expect(total.waitMs?.p50).toBeLessThan(1024)
  expect(total.waitMs?.p95).toBeGreaterThanOrEqual(23_170)
  expect(total.waitMs?.p99).toBeLessThan(32_768)
  expect(total.runMs?.p99).toBeGreaterThanOrEqual(8)
  expect(total.runMs?.p99).toBeLessThan(11.4)
  const days = await bus.stats({ from, to, by: 'day' })
  expect(days.from).toEqual(new Date('2026-11-02T00:00:00Z'))
  expect(days.points).toMatchObject([{ at: new Date('2026-11-02T00:00:00Z'), deliveredCount: 4320 }])
  const each = await bus.stats({ from, to, by: 'subscription' })
  expect(
    each.points.map(({ subscription, deliveredCount, publishedCount }) => [
      subscription,
      deliveredCount,
      publishedCount,
    ]),
  ).toEqual([
    ['ledger', 2160, undefined],
    ['mail', 2160, undefined],
  ])
  expect(each.total).toMatchObject({ publishedCount: 2400, deliveredCount: 4320 })
  const [first] = (await bus.stats({ from, to, by: 'subscription', limit: 1 })).points
  expect(first?.subscription).toBe('ledger')
  expect(await bus.stats({ from, to, by: 'subscription', limit: 1 })).toMatchObject({
    isPartial: true,
    total: { deliveredCount: 4320 },
  })
  const one = await bus.stats({ from, to, subscription: 'mail' })
  expect(one.total).toMatchObject({ deliveredCount: 2160, failedAttemptCount: 0, publishedCount: undefined })
  await expect(bus.stats({ from, to, subscription: 'nobody' })).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
  expect(
    (await bus.stats({ from: new Date(0), to: new Date(3_600_000), subscription: 'mail' })).points,
  ).toEqual([])
})

test('a subscription that was removed keeps its name, and one that has the name now is counted by itself', async () => {
  const database = await createTestDatabase()
  await fill(database)
  const bus = testBus(database.url)
  await bus.subscriptions.remove('mail', { by: 'ana' })
  const names = async (): Promise<unknown> =>
    (await bus.stats({ from, to, by: 'subscription' })).points.map(({ subscription, deliveredCount }) => [
      subscription,
      deliveredCount,
    ])
  const counted = async (): Promise<number> =>
    (await bus.stats({ from, to, subscription: 'mail' })).total.deliveredCount
  const both = [
    ['ledger', 2160],
    ['mail', 2160],
  ]
  expect(await names()).toEqual(both)
  expect(await counted()).toBe(2160)
  await rollUpHours(open(database))
  expect(await names()).toEqual(both)
  await database.rows(
    `insert into bus.subscriptions (id, name, service, patterns, options) overriding system value values (3, 'mail', 'shop', '{note}', '{}')`,
  )
  await database.rows(
    `update bus.hourly_rollups set subscription_id = 3 where subscription_id = 2 and hour = '2026-11-02T11:00:00Z'`,
  )
  expect(await names()).toEqual([
    ['ledger', 2160],
    ['mail', 1080],
    ['mail', 1080],
  ])
  expect(await counted()).toBe(1080)
})

test('hours that are over are added up once, and the answers stay the same, also beside later minutes', async () => {
  const database = await createTestDatabase()
  await fill(database)
  const bus = testBus(database.url)
  const options: StatsOptions = { from, to, by: 'hour' }
  const before = await bus.stats(options)
  const bySubscription = await bus.stats({ ...options, by: 'subscription' })
  const own = open(database)
  expect(await rollUpHours(own)).toBe(true)
  expect(await rollUpHours(own)).toBe(false)
  expect(await database.count('select count(*) from bus.hourly_rollups')).toBe(6)
  expect(await bus.stats(options)).toEqual(before)
  expect(await bus.stats({ ...options, by: 'subscription' })).toEqual(bySubscription)
  // The minutes are gone some day; the hours stay.
  await database.rows('delete from bus.rollups')
  expect(await bus.stats(options)).toEqual(before)
  // A quiet week, then minutes of today and of the hour that is running.
  await database.rows(
    `insert into bus.rollups (minute, subscription_id, instance_id, delivered, wait_bins, run_bins)
     select m, 1, '00000000-0000-0000-0000-000000000001', 5, '{}', '{}'
     from unnest(array[date_trunc('minute', now()), date_trunc('minute', now() - interval '3 hours')]) m`,
  )
  expect(await rollUpHours(own)).toBe(true)
  expect(await rollUpHours(own)).toBe(false)
  expect((await bus.stats()).total.deliveredCount).toBe(10)
  await database.rows(
    `update bus.hourly_rollups set hour = hour - interval '401 days' where subscription_id = 2`,
  )
  await pruneHours(own)
  expect(await database.count('select count(*) from bus.hourly_rollups where subscription_id = 2')).toBe(0)
  await own.close()
})

test('tenants are counted by hour, what several processes count is added up, and few of very many are named', async () => {
  const database = await createTestDatabase()
  const own = open(database)
  let now = from.getTime()
  const [one, two] = [createTenantCounts(own, () => now), createTenantCounts(own, () => now)]
  for (let n = 0; n < 1500; n += 1) one.add(`tenant-${n}`, 'published', n < 3 ? 1000 - n : 1)
  two.add('tenant-0', 'delivered', 5)
  two.add('tenant-0', 'dead')
  two.add(undefined, 'failed')
  await Promise.all([one.flush(), two.flush()])
  now += 3_600_000
  one.add('tenant-1', 'published', 7)
  await one.flush()
  await one.flush()
  const bus = testBus(database.url)
  const largest = await bus.stats({ from, to, by: 'tenant', limit: 3 })
  expect(largest.points.map(({ tenantId, publishedCount }) => [tenantId, publishedCount])).toEqual([
    ['tenant-1', 1006],
    ['tenant-0', 1000],
    ['tenant-2', 998],
  ])
  expect(largest).toMatchObject({
    isPartial: true,
    total: {
      publishedCount: 2997 + 1497 + 7,
      deliveredCount: 5,
      deadCount: 1,
      failedAttemptCount: 1,
      waitMs: undefined,
    },
  })
  expect(await database.count('select count(*) from bus.tenant_rollups')).toBe(1001)
  const hours = await bus.stats({ from, to, tenantId: 'tenant-1' })
  expect(
    hours.points.map(({ at, publishedCount, tenantId }) => [at?.toISOString(), publishedCount, tenantId]),
  ).toEqual([
    ['2026-11-02T10:00:00.000Z', 999, undefined],
    ['2026-11-02T11:00:00.000Z', 7, undefined],
  ])
  expect((await bus.stats({ from, to, by: 'tenant', tenantId: 'tenant-0' })).points).toMatchObject([
    { tenantId: 'tenant-0', publishedCount: 1000, deliveredCount: 5, deadCount: 1 },
  ])
  await own.close()
})

test('a bus counts what it does for each tenant, and a tenant reads its own counts and no others', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'picky', events: ['note'], retry: { ...retryAtOnce, maxAttempts: 2 } },
    handler: ({ payload }) => {
      if (payload === 'bad') throw new Error('refused')
    },
  })
  await bus.start()
  const note = { type: 'note', payload: 'x' } as const
  await publish(
    database,
    bus,
    { ...note, tenantId: 'acme' },
    { ...note, tenantId: 'acme' },
    { ...note, tenantId: 'rival', payload: 'bad' },
  )
  await publish(database, bus, { ...note, tenantId: 'rival', expiresAt: new Date(Date.now() - 1000) })
  await until(
    'all is over',
    async () =>
      (await bus.deadLetters.list()).length === 1 &&
      (await database.count('select count(*) from bus.deliveries')) === 3,
  )
  await bus.stop()
  const reader = testBus(database.url)
  const { points } = await reader.stats({ by: 'tenant' })
  expect(points).toMatchObject([
    {
      tenantId: 'acme',
      publishedCount: 2,
      deliveredCount: 2,
      failedAttemptCount: 0,
      deadCount: 0,
      expiredCount: 0,
    },
    {
      tenantId: 'rival',
      publishedCount: 2,
      deliveredCount: 0,
      failedAttemptCount: 2,
      deadCount: 1,
      expiredCount: 1,
    },
  ])
  const seenBy = async (tenantId: string): Promise<unknown> =>
    reader.tenant(tenantId).query(async (db) => {
      const { rows } = await db.execute('select tenant_id, published::int from bus.tenant_rollups')
      return rows
    })
  expect(await seenBy('acme')).toEqual([{ tenant_id: 'acme', published: 2 }])
  expect(await seenBy('rival')).toEqual([{ tenant_id: 'rival', published: 2 }])
  expect(await seenBy('nobody')).toEqual([])
})

test.each(['bus_worker', 'bus_operator'])(
  '%s may read statistics and health; others may not',
  async (role) => {
    const database = await createTestDatabase()
    await fill(database)
    const login = await createLogin(database)
    const stranger = testBus(login.url)
    await expect(stranger.stats({ from, to })).rejects.toMatchObject({ code: 'BUS_PERMISSION_DENIED' })
    const refused = await stranger.health({ full: true })
    expect(refused).toMatchObject({ database: 'up' })
    const failures = refused.findings.find(({ code }) => code === 'check-failed')?.data['failures']
    expect((failures as { section: string }[]).map(({ section }) => section)).toEqual([
      ...['partitions', 'registry', 'outbox', 'blocked keys', 'dead letters', 'quarantine'],
    ])
    await database.rows(`grant ${role} to ${login.name}`)
    expect((await testBus(login.url).stats({ from, to })).total.deliveredCount).toBe(4320)
    expect((await testBus(login.url).stats({ from, to, by: 'tenant' })).points).toEqual([])
    const health = await testBus(login.url).health({ full: true })
    expect(health.findings.map(({ code }) => code)).not.toContain('check-failed')
    expect(health.subscriptions).toHaveLength(2)
  },
)

test.each<[object, string]>([
  [{ by: 'week' }, '`by`'],
  [{ until: new Date() }, 'Unknown option `until`'],
  [{ from: '2026-11-02' }, '`from`'],
  [{ from: to, to: from }, '`from` to be before `to`'],
  [{ from: new Date('2026-01-01'), to, by: 'minute' }, 'at most 24 hours apart'],
  [{ tenantId: 'acme', subscription: 'mail' }, '`tenantId`'],
  [{ tenantId: 'acme', by: 'minute' }, '`tenantId`'],
  [{ by: 'tenant', subscription: 'mail' }, 'without `subscription`'],
  [{ by: 'tenant', limit: 1001 }, '`limit`'],
])('%j is refused', async (options, message) => {
  const bus = testBus('postgres://nowhere')
  await expect(bus.stats(options as StatsOptions)).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  await expect(bus.stats(options as StatsOptions)).rejects.toThrow(message)
})

test('a percentile is found in its bin, also at the ends', () => {
  expect(percentileOf([], 0.5)).toBeUndefined()
  expect(percentileOf([0, 0], 0.5)).toBeUndefined()
  // 100 in [2, 2.83), 100 in [16, 22.6).
  const bins = [0, 0, 100, 0, 0, 0, 0, 0, 100]
  expect(percentileOf(bins, 0.25)).toBeCloseTo(2 + (2 ** 1.5 - 2) / 2)
  expect(percentileOf(bins, 0.5)).toBeCloseTo(2 ** 1.5)
  expect(percentileOf(bins, 0.75)).toBeCloseTo(16 + (2 ** 4.5 - 16) / 2)
  expect(percentileOf(bins, 1)).toBeCloseTo(2 ** 4.5)
  expect(percentileOf([10], 0.5)).toBeCloseTo(Math.SQRT2 / 2)
})
