import { expect, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, type TestDatabase } from '../../support/database.ts'
import { describeSchema } from '../../support/schema-snapshot.ts'
import { openSession } from '../../support/session.ts'

/** The name of the month so many months from now, as partitions have it. */
function month(offset: number): string {
  const now = new Date()
  const date = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + offset))
  return `${date.getUTCFullYear()}_${String(date.getUTCMonth() + 1).padStart(2, '0')}`
}

/** A moment of the month so many months from now, as SQL. */
const start = (offset: number): string => `'${month(offset).replace('_', '-')}-01T00:00:00Z'::timestamptz`

/** Publishes an event that carries the id of a moment and gives the partition it went to. */
const insertAt = (moment: string, extra = ''): string =>
  `insert into bus.events (id, tenant_id, type, source, payload, created_at)
   select overlay(bus.uuid_v7_floor(m)::text placing '7' from 15)::uuid, 'acme', 'note', 'sql', '1', m
   from (values (${moment})) v (m) ${extra} returning tableoid::regclass::text as partition`

const parents = ['events', 'receipts', 'receipt_batches', 'attempts'] as const

async function partitionsOf({ rows }: TestDatabase, parent: string): Promise<string[]> {
  const found = await rows(
    `select inhrelid::regclass::text as name from pg_inherits where inhparent = $1::regclass order by 1`,
    [`bus.${parent}`],
  )
  return found.map(({ name }) => String(name).replace('bus.', ''))
}

test('the log and the ledger have a partition for last month, this month and three to come', async () => {
  const database = await createTestDatabase()
  for (const parent of parents) {
    const months = [-1, 0, 1, 2, 3].map((offset) => `${parent}_${month(offset)}`)
    expect(await partitionsOf(database, parent)).toEqual([...months, `${parent}_default`].toSorted())
  }
})

test('an event lands in the partition of its month, to the millisecond', async () => {
  const database = await createTestDatabase()
  const landed = async (moment: string) => (await database.rows(insertAt(moment)))[0]?.['partition']
  expect(await landed('now()')).toBe(`bus.events_${month(0)}`)
  for (const offset of [0, 1, 2, 3]) {
    expect(await landed(start(offset))).toBe(`bus.events_${month(offset)}`)
    expect(await landed(`${start(offset)} - interval '1 millisecond'`)).toBe(
      `bus.events_${month(offset - 1)}`,
    )
  }
  expect(await landed(`${start(-1)} - interval '1 millisecond'`)).toBe('bus.events_default')
  expect(await landed(start(4))).toBe('bus.events_default')
  await database.rows(
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms) select 1, id, 1, 1 from bus.events`,
  )
  const split = await database.rows(
    `select e.tableoid::regclass::text as log, d.tableoid::regclass::text as ledger
     from bus.events e join bus.receipts d on d.event_id = e.id`,
  )
  expect(split).toHaveLength(11)
  for (const { log, ledger } of split) expect(ledger).toBe(String(log).replace('events', 'receipts'))
})

test('rows of the default partition move when their partition is created, and are not published again', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  await rows(insertAt(start(4)))
  await rows(insertAt(`${start(5)} - interval '1 millisecond'`))
  await rows(insertAt(start(5)))
  await rows(
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms) select 1, id, 1, 1 from bus.events`,
  )
  const where = async () =>
    rows(`select tableoid::regclass::text as name, count(*)::int from only bus.events_default group by 1
          union all select tableoid::regclass::text, count(*)::int from bus.events where tableoid <> 'bus.events_default'::regclass group by 1 order by 1`)
  expect(await where()).toEqual([{ name: 'bus.events_default', count: 3 }])
  expect(await count('select bus.create_partitions(4)')).toBe(4)
  expect(await where()).toEqual([
    { name: `bus.events_${month(4)}`, count: 2 },
    { name: 'bus.events_default', count: 1 },
  ])
  expect(await count(`select count(*) from bus.receipts_${month(4)}`)).toBe(2)
  expect(await count(`select count(*) from bus.receipts_default`)).toBe(1)
  expect(await count('select count(*) from bus.outbox')).toBe(3)
  expect(await count('select bus.create_partitions(5)')).toBe(4)
  expect(await count('select count(*) from bus.events_default')).toBe(0)
  expect(await count(`select count(*) from bus.events_${month(5)}`)).toBe(1)
})

test('creating partitions again changes nothing, and ten callers at once create each once', async () => {
  const database = await createTestDatabase({ max: 10 })
  const before = await describeSchema(database.rows)
  expect(await database.count('select bus.create_partitions()')).toBe(0)
  expect(await describeSchema(database.rows)).toBe(before)
  const created = await Promise.all(
    Array.from({ length: 10 }, async () => database.sql`select bus.create_partitions(8) as created`),
  )
  expect(created.map(([row]) => Number(row?.['created'])).toSorted((a, b) => b - a)).toEqual([
    20,
    ...Array<number>(9).fill(0),
  ])
  expect(await partitionsOf(database, 'events')).toHaveLength(11)
  expect(await describeSchema(database.rows)).toBe(before.replaceAll('5 × table', '10 × table'))
})

test('bounds do not depend on the settings of the session', async () => {
  const database = await createTestDatabase()
  const bounds = async () =>
    database.rows(
      `select c.relname, pg_get_expr(c.relpartbound, c.oid) as bound from pg_class c where c.relispartition and c.relkind = 'r' and c.relnamespace = 'bus'::regnamespace order by 1`,
    )
  const before = await bounds()
  const session = await openSession(database)
  await session.rows(`set timezone = 'Pacific/Auckland'`)
  await session.rows(`set datestyle = 'SQL, DMY'`)
  await session.rows(`set intervalstyle = 'iso_8601'`)
  for (const offset of [-1, 0, 1, 2, 3])
    for (const parent of parents) await session.rows(`drop table bus.${parent}_${month(offset)}`)
  expect(await bounds()).toHaveLength(4)
  expect(await session.rows('select bus.create_partitions()')).toEqual([{ create_partitions: 20 }])
  expect(await bounds()).toEqual(before)
  expect(before).toHaveLength(24)
})

test('partitions are created beside open publishers, and publishers commit beside an open creation', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const publish = async (payload: string) =>
    database.db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 'acme', payload }))
  const open = await openSession(database)
  await open.rows('begin')
  await open.rows(insertAt('now()'))
  // Done while the publisher's transaction is still open ...
  const creating = await openSession(database)
  await creating.rows('begin')
  expect(await creating.rows('select bus.create_partitions(5)')).toEqual([{ create_partitions: 8 }])
  // ... and others publish and commit while the creation is, with all its locks.
  expect(await publish('beside')).toMatchObject({ duplicate: false })
  await open.rows('commit')
  await creating.rows('commit')
  expect(await database.count(`select count(*) from bus.events_${month(0)}`)).toBe(2)
  expect(await partitionsOf(database, 'events')).toHaveLength(8)
})

test('a reader of the whole log makes the creation wait for a moment at most, and publishers not at all', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const reader = await openSession(database)
  await reader.rows('begin')
  await reader.rows('select count(*) from bus.events')
  const creating = await openSession(database)
  const created = creating.rows('select bus.create_partitions(5)')
  await database.db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 'acme', payload: 1 }))
  expect(await created).toEqual([{ create_partitions: 0 }])
  await database.rows(insertAt(start(4)))
  expect(await database.count('select count(*) from bus.events_default')).toBe(1)
  await reader.rows('commit')
  expect(await creating.rows('select bus.create_partitions(5)')).toEqual([{ create_partitions: 8 }])
  expect(await database.count(`select count(*) from bus.events_${month(4)}`)).toBe(1)
  const [setting] = await creating.rows('show lock_timeout')
  expect(setting).toEqual({ lock_timeout: '0' })
})

test('an event that falls into the default partition while its partition is created is not lost', async () => {
  const database = await createTestDatabase()
  const open = await openSession(database)
  await open.rows('begin')
  await open.rows(insertAt(start(4)))
  // Its row cannot be seen yet, so it cannot be moved: the partition has to wait.
  expect(await database.count('select bus.create_partitions(4)')).toBe(0)
  await open.rows('commit')
  expect(await database.count('select bus.create_partitions(4)')).toBe(4)
  expect(await database.count(`select count(*) from bus.events_${month(4)}`)).toBe(1)
})

test('the role of a worker makes partitions it does not own, two years ahead at most; others make none', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('set role bus_worker')
  expect(await session.rows('select bus.create_partitions(4)')).toEqual([{ create_partitions: 4 }])
  await expect(session.rows('select bus.create_partitions(25)')).rejects.toMatchObject({ code: '22023' })
  await expect(session.rows(`select * from bus.events_${month(4)}`)).rejects.toMatchObject({ code: '42501' })
  await session.rows('set role bus_publisher')
  await expect(session.rows('select bus.create_partitions(5)')).rejects.toMatchObject({ code: '42501' })
  const [parent] = await database.rows(`select relowner from pg_class where oid = 'bus.events'::regclass`)
  const [partition] = await database.rows(
    `select relowner, relrowsecurity from pg_class where oid = 'bus.events_${month(4)}'::regclass`,
  )
  expect(partition).toEqual({ ...parent, relrowsecurity: true })
})
