import { randomUUID } from 'node:crypto'
import { inspect } from 'node:util'
import { expect, inject, onTestFinished, test } from 'vitest'
import pg from 'pg'
import { withLock } from '../../src/database/advisory-lock.ts'
import { createDatabase } from '../../src/database/database.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { shippedMigrationCount } from '../support/migrations.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'
import { openSession } from '../support/session.ts'
import { locks } from '../../src/database/locks.ts'

const note = { type: 'note', tenantId: 'acme', payload: 'canary-1795' } as const

/** Every object of the database by name and identity: whatever is dropped, created again or rewritten shows. */
async function identities({ rows }: TestDatabase): Promise<unknown> {
  return rows(
    `select n.nspname, c.relname, c.oid, c.relfilenode from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('bus', 'pgboss') union all
     select n.nspname, p.proname, p.oid, p.xmin::text::bigint from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname in ('bus', 'pgboss') order by 1, 2, 3`,
  )
}

test('an empty database has the checked-in schema after migrate, and an event goes through', async () => {
  const database = await createTestDatabase({ empty: true })
  const bus = testBus(database.url)
  await bus.migrate()
  expect(await describeSchema(database.rows)).toBe(await checkedInSchema())
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  await database.db.transaction(async (tx) => bus.publish(tx, note))
  await until('the handler ran', () => seen.length === 1)
})

test('migrating again changes nothing, and keeps the rows', async () => {
  const database = await createTestDatabase({ empty: true })
  const bus = testBus(database.url)
  await bus.migrate()
  await database.db.transaction(async (tx) => bus.publish(tx, { ...note, eventId: 'e' }))
  const before = await identities(database)
  const migrations = await database.rows('select * from bus.migrations')
  await bus.migrate()
  expect(await identities(database)).toEqual(before)
  expect(await database.rows('select * from bus.migrations')).toEqual(migrations)
  expect(migrations).toHaveLength(shippedMigrationCount())
  for (const table of ['events', 'outbox', 'event_keys'])
    expect(await database.rows(`select '${table}' as kept from bus.${table}`)).toEqual([{ kept: table }])
})

test('twenty buses that migrate an empty database at once all succeed', async () => {
  const database = await createTestDatabase({ empty: true })
  const buses = Array.from({ length: 20 }, () => testBus(database.url))
  await Promise.all(buses.map(async (bus) => bus.migrate()))
  expect(await database.count('select count(*) from bus.migrations')).toBe(shippedMigrationCount())
  expect(await describeSchema(database.rows)).toBe(await checkedInSchema())
})

test('a bus whose turn to migrate has not come holds no snapshot, so indexes can be built concurrently', async () => {
  const database = await createTestDatabase()
  const holder = await openSession(database)
  await holder.rows('select pg_advisory_lock($1, $2)', [locks.namespace, locks.migrate])
  await database.rows('create table public.large (id int)')
  let done = false
  const migrated = testBus(database.url)
    .migrate()
    .then(() => {
      done = true
    })
  await until(
    'the bus asks for its turn',
    async () =>
      (await database.count(
        `select count(*) from pg_stat_activity where datname = current_database() and application_name = 'bossbus'
           and (query like '%pg_try_advisory_xact_lock(${locks.namespace}, ${locks.migrate})%' or query = 'rollback')`,
      )) === 1,
  )
  await database.rows('create index concurrently on public.large (id)')
  expect(done).toBe(false)
  await holder.rows('select pg_advisory_unlock($1, $2)', [locks.namespace, locks.migrate])
  await migrated
  expect(done).toBe(true)
})

test('a bus that holds the turn to migrate holds no snapshot either, and no lock that outlives it', async () => {
  const database = await createTestDatabase()
  const own = createDatabase(database.url, recordingLogger())
  onTestFinished(async () => own.close())
  const held = `select count(*) from pg_locks where locktype = 'advisory' and database =
    (select oid from pg_database where datname = current_database())`
  await database.rows('create table public.large (id int)')
  await withLock(own, locks.migrate, async () => {
    expect(await database.count(held)).toBe(1)
    await database.rows('create index concurrently on public.large (id)')
  })
  await until('the lock is free', async () => (await database.count(held)) === 0)
})

test('a role that owns the database and nothing else can migrate, and publish', async () => {
  const role = `owner_${randomUUID().replaceAll('-', '')}`
  const admin = new pg.Client({ connectionString: inject('serverUrl') })
  await admin.connect()
  onTestFinished(async () => admin.end())
  onTestFinished(async () => void (await admin.query(`drop role if exists ${role}`)))
  const database = await createTestDatabase({ empty: true })
  await database.rows(`create role ${role} login password 'secret' nosuperuser`)
  const url = new URL(database.url)
  await database.rows(`alter database ${url.pathname.slice(1)} owner to ${role}`)
  url.username = role
  url.password = 'secret'
  const bus = testBus(url.toString())
  await bus.migrate()
  await bus.migrate()
  expect(await bus.tryPublish(note)).toMatchObject({ duplicate: false })
  expect(await database.count('select count(*) from bus.outbox')).toBe(1)
})

test('the settings of a database do not reach the schema', async () => {
  const database = await createTestDatabase({ empty: true })
  const name = new URL(database.url).pathname.slice(1)
  for (const setting of [
    `timezone = 'Pacific/Auckland'`,
    `datestyle = 'SQL, DMY'`,
    `intervalstyle = 'sql_standard'`,
    `default_transaction_isolation = 'serializable'`,
    `search_path = 'public'`,
    `bytea_output = 'escape'`,
  ])
    await database.rows(`alter database ${name} set ${setting}`)
  const bus = testBus(database.url)
  await bus.migrate()
  const [session] = await (await openSession(database)).rows('show timezone')
  expect(session).toEqual({ TimeZone: 'Pacific/Auckland' })
  expect(await describeSchema(database.rows)).toBe(await checkedInSchema())
  expect(await bus.tryPublish(note)).toMatchObject({ duplicate: false })
})

test('a database that a newer bus has migrated is refused, by migrate and by start', async () => {
  const database = await createTestDatabase()
  await testBus(database.url).start()
  await database.rows(
    `insert into bus.migrations (hash, created_at) select 'of a newer version', max(created_at) + 1 from bus.migrations`,
  )
  const before = await identities(database)
  const refusal = { name: 'DatabaseError', code: 'BUS_SCHEMA_TOO_NEW', retryable: false }
  await expect(testBus(database.url).migrate()).rejects.toMatchObject(refusal)
  await expect(testBus(database.url).start()).rejects.toMatchObject(refusal)
  expect(await identities(database)).toEqual(before)
})

test.each([
  ['more migrations than this version has', 16],
  ['as many', shippedMigrationCount()],
  ['fewer', 3],
])(
  'a database with other migrations, %s, is refused by migrate and by start, and not changed',
  async (_, number) => {
    const database = await createTestDatabase({ empty: true })
    const bus = testBus(database.url)
    await bus.migrate()
    // Of the same files: accepted.
    await bus.migrate()
    await database.rows('delete from bus.migrations')
    await database.rows(
      `insert into bus.migrations (hash, created_at)
     select encode(sha256(convert_to('before the release ' || n, 'UTF8')), 'hex'), 1795422933471 + n from generate_series(1, $1::int) n`,
      [number],
    )
    const before = await identities(database)
    const refusal = { name: 'DatabaseError', code: 'BUS_SCHEMA_UNKNOWN', retryable: false }
    await expect(bus.migrate()).rejects.toMatchObject(refusal)
    await expect(testBus(database.url).start()).rejects.toMatchObject(refusal)
    await expect(bus.migrate()).rejects.toThrow(`migration 1 of the ${number} that it has differs`)
    expect(await identities(database)).toEqual(before)
    expect(await database.count('select count(*) from bus.migrations')).toBe(number)
  },
)

test('a database whose first migration is the same and whose second is another is refused', async () => {
  const database = await createTestDatabase()
  await database.rows(
    `update bus.migrations set hash = 'changed' where id = (select id from bus.migrations order by id offset 1 limit 1)`,
  )
  await expect(testBus(database.url).migrate()).rejects.toMatchObject({
    code: 'BUS_SCHEMA_UNKNOWN',
    message: expect.stringContaining('migration 2 of') as string,
  })
})

test('start and publish say that the schema is missing, and work once it is there', async () => {
  const database = await createTestDatabase({ empty: true })
  const bus = testBus(database.url)
  const publish = async () => database.db.transaction(async (tx) => bus.publish(tx, note))
  await expect(bus.start()).rejects.toMatchObject({ code: 'BUS_SCHEMA_MISSING', retryable: false })
  await expect(publish()).rejects.toMatchObject({ code: 'BUS_SCHEMA_MISSING', sqlState: '3F000' })
  // As a migration that failed leaves it: the schema and the table of migrations, and nothing in them.
  await database.rows('create schema bus')
  await database.rows(
    'create table bus.migrations (id serial primary key, hash text not null, created_at bigint)',
  )
  await expect(bus.start()).rejects.toMatchObject({ code: 'BUS_SCHEMA_MISSING' })
  const error: unknown = await publish().catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ code: 'BUS_SCHEMA_MISSING', sqlState: '42883' })
  expect(inspect(error, { depth: 9 })).not.toContain('canary-1795')
  await bus.migrate()
  await bus.start()
  expect(await publish()).toMatchObject({ duplicate: false })
})

test('migrate and start say that the database cannot be reached', async () => {
  const away = 'postgres://nobody@127.0.0.1:1/nowhere'
  const unavailable = { code: 'BUS_DATABASE_UNAVAILABLE', retryable: true, sqlState: 'ECONNREFUSED' }
  await expect(testBus(away).migrate()).rejects.toMatchObject(unavailable)
  await expect(testBus(away).start()).rejects.toMatchObject(unavailable)
  const { url } = await createTestDatabase()
  await testBus(url).start()
})

test('a migration that fails half way leaves nothing, and the next one finishes', async () => {
  const database = await createTestDatabase({ empty: true })
  await database.rows('create schema bus')
  // In the way of one of the last statements of the last migration.
  await database.rows(
    'create function bus.erase_events(uuid, uuid[]) returns bigint language sql as $$ select 0::bigint $$',
  )
  await expect(testBus(database.url).migrate()).rejects.toMatchObject({ code: 'BUS_DATABASE_ERROR' })
  expect(await database.count('select count(*) from bus.migrations')).toBe(0)
  expect(
    await database.rows(
      `select relname from pg_class where relnamespace = 'bus'::regnamespace and relkind in ('r', 'p')`,
    ),
  ).toEqual([{ relname: 'migrations' }])
  await database.rows('drop function bus.erase_events')
  await testBus(database.url).migrate()
  expect(await describeSchema(database.rows)).toBe(await checkedInSchema())
})
