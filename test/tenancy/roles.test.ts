import { randomUUID } from 'node:crypto'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { startOwnPostgres } from '../../src/testing/postgres.ts'
import { recordingLogger, testBus, type LogLine } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { oldServer, where } from '../support/old-server.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'

const note = { type: 'note', tenantId: 'acme', payload: 'hello' } as const

type Rows = (text: string, values?: unknown[]) => Promise<Record<string, unknown>[]>

/** An empty database that belongs to a role of its own. */
async function createOwnedDatabase(
  serverUrl: string,
  attributes = '',
): Promise<{ owner: string; url: string; admin: Rows }> {
  const owner = `owner_${randomUUID().slice(0, 8)}`
  const client = new pg.Client({ connectionString: serverUrl })
  await client.connect()
  await client.query(`create role ${owner} login password 'test' ${attributes}`)
  await client.query(`create database ${owner} owner ${owner} template template0`)
  const url = new URL(serverUrl)
  url.pathname = `/${owner}`
  const inside = new pg.Client({ connectionString: url.toString() })
  inside.on('error', () => {})
  await inside.connect()
  url.username = owner
  url.password = 'test'
  onTestFinished(async () => {
    await inside.end()
    await client.query(`drop database ${owner} with (force)`)
    await client.query(`drop owned by ${owner}`)
    await client.query(`drop role ${owner}`).catch(() => {})
    await client.end()
  })
  return {
    owner,
    url: url.toString(),
    admin: async (text, values) => (await inside.query<Record<string, unknown>>(text, values)).rows,
  }
}

/** A cluster without the roles of the bus: they are the cluster's, and other tests have made them in the shared one. */
async function startCluster(): Promise<string> {
  const server = await startOwnPostgres(['fsync=off'])
  onTestFinished(async () => server.stop())
  return server.url
}

const rolesIn = async (admin: Rows): Promise<unknown[]> =>
  (await admin(`select rolname from pg_roles where rolname like 'bus\\_%' order by 1`)).map(
    ({ rolname }) => rolname,
  )

const allRoles = ['bus_operator', 'bus_publisher', 'bus_tenant', 'bus_worker']

const warnings = ({ lines }: { lines: readonly LogLine[] }): LogLine[] =>
  lines.filter(({ level }) => level === 'warn')

/** Whether a role may become `bus_tenant`, and what it then sees of the log. */
async function readAsTenant(url: string, tenantId: string): Promise<unknown> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query('begin read only')
    await client.query('set local role bus_tenant')
    await client.query(`select set_config('bus.tenant_id', $1, true)`, [tenantId])
    return (await client.query<{ count: number }>('select count(*)::int as count from bus.events')).rows[0]
      ?.count
  } catch (error) {
    return (error as { code?: string }).code
  } finally {
    await client.end()
  }
}

/** Publishes and delivers one event under the role of a URL. */
async function deliverOne(url: string): Promise<void> {
  const bus = testBus(url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  const pool = new pg.Pool({ connectionString: url })
  await drizzle(pool).transaction(async (tx) => bus.publish(tx, note))
  await pool.end()
  await until('it was delivered', () => seen.length === 1)
  await bus.stop()
}

test('an owner that may create roles makes them all, and may become bus_tenant', async () => {
  const { url, admin } = await createOwnedDatabase(await startCluster(), 'createrole')
  const logger = recordingLogger()
  await testBus(url, { logger }).migrate()
  expect(await rolesIn(admin)).toEqual(allRoles)
  expect(warnings(logger)).toEqual([])
  expect(await describeSchema(admin)).toBe(await checkedInSchema())
  await deliverOne(url)
  expect([await readAsTenant(url, 'acme'), await readAsTenant(url, 'rival')]).toEqual([1, 0])
})

test('an owner that may not create roles is told once what to run, delivers without, and goes on where they are', async () => {
  const { url, owner, admin } = await createOwnedDatabase(await startCluster())
  const logger = recordingLogger()
  await testBus(url, { logger }).migrate()
  expect(await rolesIn(admin)).toEqual([])
  expect(warnings(logger)).toMatchObject([{ fields: { role: owner, missing: expect.any(Array) as unknown } }])
  await deliverOne(url)
  expect(await readAsTenant(url, 'acme')).toBe('22023')
  await admin(String(warnings(logger)[0]?.fields['sql']))
  expect(await rolesIn(admin)).toEqual(allRoles)
  const later = recordingLogger()
  await testBus(url, { logger: later }).migrate()
  expect(warnings(later)).toEqual([])
  expect(await describeSchema(admin)).toBe(await checkedInSchema())
  expect([await readAsTenant(url, 'acme'), await readAsTenant(url, 'rival')]).toEqual([1, 0])
})

test('several databases of one cluster that migrate at once share the roles', async () => {
  const serverUrl = await startCluster()
  const databases = await Promise.all(
    Array.from({ length: 5 }, async () => createOwnedDatabase(serverUrl, 'superuser')),
  )
  const loggers = databases.map(() => recordingLogger())
  await Promise.all(
    databases.flatMap(({ url }, index) => [
      testBus(url, { logger: loggers[index] }).migrate(),
      testBus(url, { logger: loggers[index] }).migrate(),
    ]),
  )
  expect(loggers.flatMap(warnings)).toEqual([])
  for (const { admin } of databases) {
    expect(await rolesIn(admin)).toEqual(allRoles)
    expect(await describeSchema(admin)).toBe(await checkedInSchema())
  }
})

test('who may create roles, but finds them made by another, is told which grant is missing', async () => {
  const serverUrl = await startCluster()
  const first = await createOwnedDatabase(serverUrl, 'createrole')
  await testBus(first.url).migrate()
  const second = await createOwnedDatabase(serverUrl, 'createrole')
  const logger = recordingLogger()
  await testBus(second.url, { logger }).migrate()
  expect(warnings(logger)).toMatchObject([{ fields: { sql: `grant bus_tenant to "${second.owner}";` } }])
  expect(await describeSchema(second.admin)).toBe(await checkedInSchema())
  expect(await readAsTenant(second.url, 'acme')).toBe('42501')
  await second.admin(`grant bus_tenant to "${second.owner}"`)
  const later = recordingLogger()
  await testBus(second.url, { logger: later }).migrate()
  expect(warnings(later)).toEqual([])
  expect(await readAsTenant(second.url, 'acme')).toBe(0)
})

test('with roles skipped nothing is made or granted, nothing is said, and the bus delivers', async () => {
  const { url, admin } = await createOwnedDatabase(await startCluster(), 'createrole')
  const logger = recordingLogger()
  await testBus(url, { logger }).migrate({ roles: 'skip' })
  expect([await rolesIn(admin), warnings(logger)]).toEqual([[], []])
  await deliverOne(url)
  await testBus(url).migrate()
  expect(await describeSchema(admin)).toBe(await checkedInSchema())
})

test('options of migrate that do not exist are refused', async () => {
  const bus = testBus('postgres://nobody@127.0.0.1:1/nowhere')
  const invalid = { code: 'BUS_INVALID_OPTION' }
  await expect(bus.migrate({ roles: 'make' as never })).rejects.toMatchObject(invalid)
  await expect(bus.migrate({ role: 'create' } as never)).rejects.toThrow('Did you mean `roles`?')
  await expect(bus.migrate(7 as never)).rejects.toMatchObject(invalid)
})

test.skipIf(oldServer === undefined)(
  `an owner that may create roles makes them, and may become bus_tenant ${where}`,
  async () => {
    const { url, admin } = await createOwnedDatabase(oldServer?.url ?? '', 'createrole')
    const logger = recordingLogger()
    await testBus(url, { logger }).migrate()
    await testBus(url, { logger }).migrate()
    expect(warnings(logger)).toEqual([])
    expect(await describeSchema(admin)).toBe(await checkedInSchema())
    await deliverOne(url)
    expect([await readAsTenant(url, 'acme'), await readAsTenant(url, 'rival')]).toEqual([1, 0])
  },
)

test('a database at the first migration, with rows in it, gets policies and keeps its rows', async () => {
  const database = await createTestDatabase({ empty: true })
  const { readFile } = await import('node:fs/promises')
  const first = await readFile(new URL('../../drizzle/0000_log_and_outbox.sql', import.meta.url), 'utf8')
  for (const statement of first.split('--> statement-breakpoint')) await database.rows(statement)
  const { readMigrationFiles } = await import('drizzle-orm/migrator')
  const [migration] = readMigrationFiles({ migrationsFolder: 'drizzle' })
  await database.rows(
    'create table bus.migrations (id serial primary key, hash text not null, created_at bigint)',
  )
  await database.rows('insert into bus.migrations (hash, created_at) values ($1, $2)', [
    migration?.hash,
    migration?.folderMillis,
  ])
  for (const tenantId of ['acme', 'rival'])
    await database.rows(
      `insert into bus.events (tenant_id, type, source, payload) values ($1, 'note', 'sql', '"old"')`,
      [tenantId],
    )
  await testBus(database.url).migrate()
  expect(await describeSchema(database.rows)).toBe(await checkedInSchema())
  expect(await database.count('select count(*) from bus.outbox')).toBe(2)
  expect([await readAsTenant(database.url, 'acme'), await readAsTenant(database.url, '')]).toEqual([1, 0])
})
