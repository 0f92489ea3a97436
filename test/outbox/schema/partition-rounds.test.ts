// @module-tag slow
import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { createLogin } from '../../support/roles.ts'
import { openSession } from '../../support/session.ts'
import { roomFor } from '../../support/slowness.ts'

/** The name of the month so many months from now, as partitions have it. */
function month(offset: number): string {
  const now = new Date()
  const date = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + offset))
  return `${date.getUTCFullYear()}_${String(date.getUTCMonth() + 1).padStart(2, '0')}`
}

const parents = ['events', 'receipts', 'receipt_batches', 'attempts'] as const

const partitions = (...offsets: readonly number[]): string =>
  offsets.flatMap((offset) => parents.map((parent) => `bus.${parent}_${month(offset)}`)).join(', ')

/** Publishes in turns, so many events a call, and gives the failures and how long the slowest call took. */
async function publishAll(
  { db }: TestDatabase,
  bus: PaymentBus,
  {
    publishers,
    calls,
    events,
  }: { readonly publishers: number; readonly calls: number; readonly events: number },
): Promise<{ failures: unknown[]; slowestMs: number }> {
  const failures: unknown[] = []
  let slowestMs = 0
  const one = async (publisher: number): Promise<void> => {
    for (let call = 0; call < calls; call += 1) {
      const orderingKey = `${publisher}.${call % 7}`
      const batch = Array.from({ length: events }, (_, n) => ({
        ...{ type: 'note', tenantId: 'acme', payload: `${publisher}.${call}.${n}`, orderingKey },
      })) as Parameters<typeof bus.publishMany>[1]
      const startedAt = performance.now()
      await db
        .transaction(async (tx) => bus.publishMany(tx, batch))
        .catch((error: unknown) => failures.push(error))
      slowestMs = Math.max(slowestMs, performance.now() - startedAt)
    }
  }
  await Promise.all(Array.from({ length: publishers }, async (_, publisher) => one(publisher)))
  return { failures, slowestMs }
}

test('events flow in every mode while partitions are dropped and made: no publish fails, and nothing becomes a dead letter', async () => {
  const database = await createTestDatabase({ max: 8 })
  const logger = recordingLogger()
  const bus = testBus({ connectionString: database.url, max: 10 }, { logger })
  const seen = {
    plain: new Map<string, number>(),
    once: new Map<string, number>(),
    ordered: new Map<string, number>(),
  }
  const count = (of: Map<string, number>) => (event: { id: string }) =>
    void of.set(event.id, (of.get(event.id) ?? 0) + 1)
  const retry = { maxAttempts: 1 } as const
  bus.subscribe({ name: 'plain', events: ['note'], retry, handler: count(seen.plain) })
  bus.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', retry, handler: count(seen.once) })
  bus.subscribe({ name: 'ordered', events: ['note'], ordered: true, retry, handler: count(seen.ordered) })
  await bus.start()
  const making = await openSession(database)
  let expected = 0
  for (let round = 0; round < 4; round += 1) {
    // The month of now has no partition, and what comes meanwhile falls into the default one.
    await making.rows('truncate bus.events_default, bus.receipts_default, bus.receipt_batches_default')
    await making.rows(`drop table if exists ${partitions(0, 2, 3)}`)
    let stopped = false
    const published = publishAll(database, bus, { publishers: 4, calls: 15, events: 25 }).finally(
      () => (stopped = true),
    )
    expected += 4 * 15 * 25
    await pause(20 * round)
    while (!stopped) {
      await making.rows('select bus.create_partitions()')
      await pause(20)
      await making.rows(`set lock_timeout = '20ms'`)
      await making.rows(`drop table if exists ${partitions(2, 3)}`).catch(() => {})
      await making.rows(`set lock_timeout = 0`)
    }
    expect((await published).failures).toEqual([])
    await until('every subscription has them all', () =>
      Object.values(seen).every(({ size }) => size === expected),
    )
    await until(
      'all is settled',
      async () => (await database.count(`select count(*) from pgboss.job where state < 'completed'`)) === 0,
    )
  }
  expect(await bus.deadLetters.list()).toEqual([])
  expect(logger.lines.filter(({ fields }) => fields['errorCode'] === 'BUS_EVENT_NOT_FOUND')).toEqual([])
})

/** Fills the default partition past all triggers, as months without a partition would. */
async function fillDefault({ rows }: TestDatabase, events: number): Promise<void> {
  await rows(`drop table ${partitions(0)}`)
  await rows(`
    set session_replication_role = replica;
    insert into bus.events (tenant_id, type, source, payload)
    select 'acme', 'note', 'sql', jsonb_build_object('n', n, 'text', repeat('x', 150)) from generate_series(1, ${events}) n;
    insert into bus.receipts (subscription_id, event_id, attempts, duration_ms) select 1, id, 1, 1 from bus.events_default;
    reset session_replication_role`)
  await rows('vacuum analyze bus.events')
  await rows('vacuum analyze bus.receipts')
}

test('with 250,000 rows in the default partition coming months get theirs, and no publisher waits for longer than a moment', async () => {
  const database = await createTestDatabase({ max: 8 })
  const { rows, count } = database
  await fillDefault(database, 250_000)
  await rows(`drop table ${partitions(2, 3)}`)
  const bus = testBus(database.url)
  const some = { publishers: 4, calls: 100, events: 1 } as const
  await publishAll(database, bus, some)
  const before = await publishAll(database, bus, some)
  let created = 0
  const making = (async () => {
    while ((await count('select cardinality(missing) from bus.partition_state()')) > 0) {
      created += await count('select bus.create_partitions()')
    }
  })()
  const beside = await publishAll(database, bus, some)
  await making
  // Two of the month that has begun: no attempt and no packed receipt is in the default partitions.
  expect(created).toBe(10)
  expect([...before.failures, ...beside.failures]).toEqual([])
  expect(beside.slowestMs).toBeLessThan(roomFor(before.slowestMs + 100))
  expect(await count('select cardinality(missing) from bus.partition_state()')).toBe(0)
  expect(await count(`select count(*) from pg_constraint where conname like '%excludes_months'`)).toBe(0)
  // The month that has begun stays where it is.
  expect(await count(`select count(*) from bus.events_default`)).toBe(250_000 + 3 * 400)
  expect((await bus.health()).defaultPartition).toMatchObject({ eventCount: 10_000, deliveryCount: 10_000 })
})

test('a large default partition is read beside all others before a partition is attached, never under its lock', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  await fillDefault(database, 40_000)
  await rows(`drop table ${partitions(1, 2, 3)}`)
  const create = async () => count('select bus.create_partitions()')
  const constraints = async () =>
    rows(
      `select conrelid::regclass::text as partition, convalidated from pg_constraint where conname like '%excludes_months'`,
    )
  // The receipts take little room: nothing has to be said of them. What begins within a day is not made ahead of the rows.
  const soon = new Date(Date.now() + 86_400_000).getUTCMonth() !== new Date().getUTCMonth()
  expect(await create()).toBe(0)
  expect(await constraints()).toEqual([{ partition: 'bus.events_default', convalidated: false }])
  expect(await create()).toBe(0)
  expect(await constraints()).toEqual([{ partition: 'bus.events_default', convalidated: true }])
  expect(await create()).toBe(soon ? 13 : 14)
  expect(await constraints()).toEqual([])
  expect(await count('select count(*) from bus.events_default')).toBe(40_000)
})

test('a constraint that is left behind goes before its month comes near', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  await fillDefault(database, 40_000)
  await rows(`alter table bus.events_default add constraint events_default_excludes_months
    check (id < bus.uuid_v7_floor(now() + interval '20 hours') or id >= bus.uuid_v7_floor(now() + interval '40 days')) not valid`)
  await rows(`do $$ begin execute format('comment on constraint events_default_excludes_months on bus.events_default is %L',
    extract(epoch from now() + interval '20 hours')::bigint || ' ' || extract(epoch from now() + interval '40 days')::bigint); end $$`)
  expect(await count('select bus.create_partitions()')).toBe(0)
  expect(await count(`select count(*) from pg_constraint where conname like '%excludes_months'`)).toBe(0)
})

test('a start makes the partitions that are missing before it delivers, and warns where the role may not', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  await rows(`drop table ${partitions(0, 1, 2, 3)}`)
  const bus = testBus(database.url)
  await bus.start()
  expect(await count('select cardinality(missing) from bus.partition_state()')).toBe(0)
  expect(await rows(`select to_regclass('bus.events_${month(0)}') is not null as there`)).toEqual([
    { there: true },
  ])
  expect((await bus.health()).defaultPartition).toBeUndefined()
  await rows('revoke execute on function bus.create_partitions, bus.partition_state from bus_worker')
  const login = await createLogin(database, ['bus_worker'])
  const logger = recordingLogger()
  const worker = testBus(login.url, { logger })
  await worker.start()
  expect(worker.state).toBe('started')
  expect(logger.lines).toContainEqual(
    expect.objectContaining({
      level: 'warn',
      message: expect.stringContaining('the partitions of the coming months could not be created') as string,
    }),
  )
})
