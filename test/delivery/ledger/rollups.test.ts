import { expect, test } from 'vitest'
import { createDatabase } from '../../../src/database/database.ts'
import { binOf, createRollups } from '../../../src/delivery/ledger/rollups.ts'
import { publish, retryAtOnce } from '../../support/ledger.ts'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

test.each([
  [0, 0],
  [0.4, 0],
  [1, 0],
  [1.5, 1],
  [2, 2],
  [1000, 19],
  [3_600_000, 43],
  [1e12, 47],
])('%d ms are in bin %i', (ms, bin) => {
  expect(binOf(ms)).toBe(bin)
})

const counts = `
  select coalesce(s.name, 'relay') as name, sum(published)::int as published, sum(delivered)::int as delivered, sum(failed)::int as failed,
    sum(dead)::int as dead, sum(expired)::int as expired,
    sum((select sum(b) from unnest(wait_bins) b))::int as waits, sum((select sum(b) from unnest(run_bins) b))::int as runs
  from bus.rollups r left join bus.subscriptions s on s.id = r.subscription_id group by 1 order by 1`

test('a process counts what it publishes, delivers, fails and gives up, by subscription', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const failures = new Map<string, number>()
  bus.subscribe({
    ...{ name: 'flaky', events: ['note'], retry: { ...retryAtOnce, maxAttempts: 2 } },
    handler: ({ id, payload }) => {
      failures.set(id, (failures.get(id) ?? 0) + 1)
      if (payload === 'always' || (payload === 'once' && failures.get(id) === 1)) throw new Error('refused')
    },
  })
  bus.subscribe({ name: 'steady', events: ['note'], mode: 'exactly-once', handler: () => {} })
  await bus.start()
  const note = { type: 'note', tenantId: 'acme' } as const
  await publish(
    database,
    bus,
    { ...note, payload: 'never' },
    { ...note, payload: 'once' },
    { ...note, payload: 'always' },
  )
  await publish(database, bus, { ...note, payload: 'late', expiresAt: new Date(Date.now() - 1000) })
  await until('all is over', async () => (await database.count('select count(*) from bus.deliveries')) === 7)
  await until('one is dead', async () => (await bus.deadLetters.list()).length === 1)
  await bus.stop()
  expect(await database.rows(counts)).toEqual([
    { name: 'flaky', published: 0, delivered: 2, failed: 3, dead: 1, expired: 1, waits: 3, runs: 5 },
    { name: 'relay', published: 4, delivered: 0, failed: 0, dead: 0, expired: 0, waits: null, runs: null },
    { name: 'steady', published: 0, delivered: 3, failed: 0, dead: 0, expired: 1, waits: 3, runs: 3 },
  ])
})

test('minutes are rows of their own, a repeated write adds nothing, and old rows go', async () => {
  const { url, rows } = await createTestDatabase()
  const database = createDatabase(url, recordingLogger())
  let now = Date.UTC(2026, 10, 29, 12, 0, 30)
  const instance = '00000000-0000-0000-0000-000000000001'
  const rollups = createRollups(database, instance, recordingLogger(), () => now)
  const eventId = '019a2279-8604-70ad-bda8-b7b51b3cd606'
  rollups.handled(7, { eventId, delivered: true, attempt: 1, durationMs: 1000 }, 1000, 'acme')
  await rollups.stop()
  rollups.handled(7, { eventId, delivered: true, attempt: 2, durationMs: 1 }, undefined, 'acme')
  await rollups.stop()
  await rollups.stop()
  now += 60_000
  rollups.handled(7, { eventId, delivered: true, attempt: 2, durationMs: 1 }, undefined, 'acme')
  rollups.published(Array.from({ length: 5 }, () => ({ tenantId: 'acme' })))
  await rollups.stop()
  const stored = await rows(
    `select to_char(minute at time zone 'utc', 'HH24:MI') as minute, subscription_id, published, delivered, wait_bins, run_bins from bus.rollups order by 1, 2`,
  )
  // A second's wait, and a handler of a second.
  const second = [...Array<number>(19).fill(0), 1]
  expect(stored).toEqual([
    {
      minute: '12:00',
      subscription_id: 7,
      published: 0,
      delivered: 2,
      wait_bins: second,
      run_bins: [1, ...second.slice(1)],
    },
    { minute: '12:01', subscription_id: 0, published: 5, delivered: 0, wait_bins: [], run_bins: [] },
    { minute: '12:01', subscription_id: 7, published: 0, delivered: 1, wait_bins: [], run_bins: [1] },
  ])
  await database.close()
})

test('the counts of tenants are written where those of subscriptions cannot be, and the other way round', async () => {
  const { url, rows, count } = await createTestDatabase()
  const logger = recordingLogger()
  const database = createDatabase(url, logger)
  const rollups = createRollups(database, '00000000-0000-0000-0000-000000000001', logger)
  const failures = (): number =>
    logger.lines.filter(({ message }) => message === 'the counts of the last seconds could not be written')
      .length
  await rows('alter table bus.rollups rename to hidden')
  rollups.published([{ tenantId: 'acme' }])
  await rollups.stop()
  expect(failures()).toBe(1)
  expect(await count('select sum(published) from bus.tenant_rollups')).toBe(1)
  await rows('alter table bus.hidden rename to rollups; alter table bus.tenant_rollups rename to hidden')
  rollups.published([{ tenantId: 'acme' }])
  await rollups.stop()
  expect(failures()).toBe(2)
  expect(await count('select sum(published) from bus.rollups')).toBeGreaterThan(0)
  await database.close()
})
