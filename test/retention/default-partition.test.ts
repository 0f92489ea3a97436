import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { logTables, monthAgo } from '../support/retention.ts'
import { openSession } from '../support/session.ts'
import { roomFor } from '../support/slowness.ts'

const now = monthAgo(0)

/** Drops the partitions of this month, and fills the default ones instead, as months without a partition would. */
async function fillDefault({ rows }: TestDatabase, count: number): Promise<void> {
  await rows(`drop table ${logTables.map((table) => `bus.${table}_${now.name}`).join(', ')}`)
  await rows(`
    set session_replication_role = replica;
    insert into bus.events (tenant_id, type, source, payload) select 'a', 'payment.refunded', 'sql', '{}' from generate_series(1, ${count}) n;
    insert into bus.receipts (subscription_id, event_id, attempts, duration_ms) select 1, id, 1, 1 from bus.events_default;
    reset session_replication_role`)
}

const countIn = async ({ count }: TestDatabase, table: string): Promise<number> =>
  count(`select count(*) from ${table}`)

test('a default partition becomes the partition of its month while publishers and readers go on, and no row is ever out of sight', async () => {
  const database = await createTestDatabase({ max: 8 })
  await fillDefault(database, 20_000)
  const bus = testBus(database.url)
  await bus.start()
  let isDone = false
  let published = 0
  const waits: number[] = []
  const seen: number[] = []
  const publishing = Array.from({ length: 3 }, async () => {
    while (!isDone) {
      const startedAt = performance.now()
      await database.db.transaction(async (tx) =>
        bus.publish(tx, { type: 'note', tenantId: 'a', payload: 'x' }),
      )
      published += 1
      waits.push(performance.now() - startedAt)
      await pause(2)
    }
  })
  const reading = (async () => {
    while (!isDone)
      seen.push(await database.count(`select count(*) from bus.events where type = 'payment.refunded'`))
  })()
  // In the way for a while.
  const reader = await openSession(database)
  await reader.rows('begin')
  await reader.rows('select count(*) from bus.events')
  const pruned = bus.prune({ by: 'ana' })
  await pause(500)
  await reader.rows('commit')
  await pruned
  isDone = true
  await Promise.all([...publishing, reading])
  expect(await countIn(database, 'bus.events_default')).toBe(0)
  expect(await countIn(database, 'bus.receipts_default')).toBe(0)
  expect(await countIn(database, `bus.events_${now.name}`)).toBe(20_000 + published)
  expect(await countIn(database, `bus.receipts_${now.name}`)).toBeGreaterThanOrEqual(20_000)
  expect(new Set(seen)).toEqual(new Set([20_000]))
  expect(waits.length).toBeGreaterThan(20)
  expect(Math.max(...waits)).toBeLessThan(roomFor(250))
  expect((await bus.health()).defaultPartition).toBeUndefined()
  expect(
    await database.count(`select count(*) from pg_constraint where conname like '%default_is_range'`),
  ).toBe(0)
  expect(await bus.audit.list({ action: 'retention.adoptDefaultPartition' })).toMatchObject(
    ['receipts', 'events'].map((table) => ({ by: 'ana', change: { partition: `${table}_${now.name}` } })),
  )
  // The tables that had no rows get a partition as ever, and events go where they belong.
  await database.rows('select bus.create_partitions()')
  const created = await database.rows(
    `select tablename::text as name from pg_tables where schemaname = 'bus' and tablename like '%\\_${now.name}' and rowsecurity order by 1`,
  )
  expect(created.map(({ name }) => name)).toEqual(logTables.map((table) => `${table}_${now.name}`).toSorted())
})

test('rows of months before the first partition become one partition, which retention drops when it is old', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  await rows(`
    set session_replication_role = replica;
    insert into bus.events (id, tenant_id, type, source, payload)
    select (left(bus.uuid_v7_floor(now() - n * interval '20 days')::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid, 'a', 'note', 'sql', '"x"'
    from generate_series(10, 30) n;
    reset session_replication_role`)
  const bus = testBus(database.url, { retention: { logDays: 100 } })
  const first = (await rows(`select min(partition_name) as name from bus.partitions_of('events')`))[0]
  expect(String(first?.['name'])).toBe(`events_${monthAgo(1).name}`)
  const state = await bus.retention.state()
  expect(state.defaultPartitions).toEqual(['events'])
  expect((await bus.prune({ by: 'ana' })).ranges).toEqual([])
  expect(await countIn(database, 'bus.events_default')).toBe(0)
  const name = `until_${monthAgo(1).name}_01`
  expect(await countIn(database, `bus.events_${name}`)).toBe(21)
  const patient = testBus(database.url, { retention: { logDays: 1 } })
  const old = (await patient.prune({ by: 'ana', dryRun: true })).ranges.map(({ range }) => range.name)
  expect(old).toContain(name)
})

test('rows on both sides of a partition stay where they are', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  await fillDefault(database, 2000)
  await rows(`
    set session_replication_role = replica;
    insert into bus.events (id, tenant_id, type, source, payload)
    values ((left(bus.uuid_v7_floor(now() - interval '200 days')::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid, 'a', 'note', 'sql', '"x"');
    reset session_replication_role`)
  expect(await rows(`select bus.adopt_default_partition('events', 'x') as step`)).toEqual([{ step: 'mixed' }])
  await testBus(database.url).prune({ by: 'ana' })
  expect(await count('select count(*) from bus.events_default')).toBe(2001)
})

test('partitions of days begin with the next month, for every process, and months come back the same way', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  const bus = testBus(database.url)
  const begins = await bus.retention.setPartitionSpan({ span: 'day', by: 'ana', reason: 'volume' })
  const next = monthAgo(Date.now() + 86_400_000 < monthAgo(-1).from.getTime() ? -1 : -2)
  expect(begins).toEqual(next.from)
  expect(await bus.retention.setPartitionSpan({ span: 'day', by: 'ana' })).toBeUndefined()
  expect(await bus.audit.list({ action: 'retention.setPartitionSpan' })).toMatchObject([
    { by: 'ana', reason: 'volume', change: { from: 'month', to: 'day' } },
  ])
  const names = async (): Promise<string[]> =>
    (
      await rows(
        `select partition_name as name from bus.partitions_of('events') where lower_bound >= bus.uuid_v7_floor('${next.from.toISOString()}') order by 1`,
      )
    ).map(({ name }) => String(name))
  const days = await names()
  expect(days.every((name) => /^events_\d{4}_\d\d_\d\d$/.test(name))).toBe(true)
  const soon = Math.floor((Date.now() + 14 * 86_400_000 - next.from.getTime()) / 86_400_000) + 1
  expect(days).toHaveLength(Math.max(0, soon))
  expect(await rows('select missing from bus.partition_state()')).toEqual([{ missing: [] }])
  // Others make the same ones.
  expect(await database.count('select bus.create_partitions()')).toBe(0)
  // Early in a month the first day is not made yet.
  const firstDay = `events_${next.name}_01`
  if (days.length === 0)
    await rows(`do $$ begin execute format('create table bus.${firstDay} partition of bus.events for values from (%L) to (%L)',
      bus.uuid_v7_floor('${next.from.toISOString()}'), bus.uuid_v7_floor('${next.from.toISOString()}'::timestamptz + interval '1 day')); end $$`)
  await rows(`
    set session_replication_role = replica;
    insert into bus.events (id, tenant_id, type, source, payload)
    values ((left(bus.uuid_v7_floor('${next.from.toISOString()}')::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid, 'a', 'note', 'sql', '"x"');
    reset session_replication_role`)
  expect(await countIn(database, `bus.${firstDay}`)).toBe(1)
  await expect(bus.retention.setPartitionSpan({ span: 'month', by: 'ana' })).rejects.toThrow(
    'has rows already',
  )
  await rows('delete from bus.events')
  expect(await bus.retention.setPartitionSpan({ span: 'month', by: 'ana' })).toEqual(next.from)
  expect((await names()).every((name) => /^events_\d{4}_\d\d$/.test(name))).toBe(true)
  expect((await names()).length).toBeGreaterThan(1)
})
