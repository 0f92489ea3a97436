import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import pg from 'pg'
import { createBus, defineEvents } from '../../src/index.ts'
import { startPostgres, type PostgresServer } from '../../src/testing/postgres.ts'

/**
 * The settings of the server, the same for every contestant. Durability is never traded: fsync, synchronous_commit
 * and full_page_writes stay on. Statements are counted only in databases that ask for it.
 */
const settings = {
  fsync: 'on',
  synchronous_commit: 'on',
  full_page_writes: 'on',
  shared_buffers: '512MB',
  max_wal_size: '4GB',
  max_connections: '200',
  autovacuum: 'on',
  shared_preload_libraries: 'pg_stat_statements',
  'pg_stat_statements.track': 'none',
} as const

/** A database of a run. */
export interface BenchDatabase {
  readonly name: string
  readonly url: string
  /** Runs one statement in it, as its owner. */
  readonly query: <R extends pg.QueryResultRow>(text: string, values?: unknown[]) => Promise<R[]>
  readonly drop: () => Promise<void>
}

/** A server for a run of the benchmark. */
export interface BenchServer {
  readonly description: string
  readonly version: string
  readonly settings: Readonly<Record<string, string>>
  /** Where the data lies, as `df` says, when the server is on this machine. */
  readonly fileSystem: string | undefined
  /** What makes its figures no measure of a durable server, where something does. */
  readonly warnings: readonly string[]
  /** An empty database, or a copy of another one that nobody uses. */
  readonly createDatabase: (template?: BenchDatabase) => Promise<BenchDatabase>
  /** A database with the schemas of the bus and of pg-boss. */
  readonly createMigratedDatabase: () => Promise<BenchDatabase>
  readonly stop: () => Promise<void>
}

/** Starts a PostgreSQL of the benchmark's own. `DATABASE_URL` is respected, as everywhere: its settings are then its own. */
export async function startBenchServer(): Promise<BenchServer> {
  const server: PostgresServer = await startPostgres({
    settings: Object.entries(settings).map(([name, value]) => `${name}=${value}`),
  })
  const admin = new pg.Client({ connectionString: server.url })
  admin.on('error', () => {})
  await admin.connect()
  const { rows: versions } = await admin.query<{ version: string; data: string }>(
    "select current_setting('server_version') as version, current_setting('data_directory') as data",
  )
  const { rows } = await admin.query<{ name: string; value: string }>(
    'select name, current_setting(name) as value from pg_settings where name = any($1) order by name',
    [Object.keys(settings)],
  )
  const actual = Object.fromEntries(rows.map(({ name, value }) => [name, value]))
  let createdCount = 0
  let migrated: Promise<BenchDatabase> | undefined

  async function createDatabase(template?: BenchDatabase): Promise<BenchDatabase> {
    createdCount += 1
    const name = `bench_${process.pid}_${createdCount}`
    await admin.query(
      `create database ${name} ${template === undefined ? '' : `template ${template.name} ${await copyStrategy(template)}`}`,
    )
    return openDatabase(server.url, name, async () => {
      await admin.query(`drop database if exists ${name} with (force)`)
      // Every contestant starts with the same amount of log to write back: none.
      await admin.query('checkpoint')
    })
  }

  /** Through the log is faster for a small database, file by file for a large one. PostgreSQL 14 knows only the latter. */
  async function copyStrategy({ name }: BenchDatabase): Promise<string> {
    const { rows } = await admin.query<{ large: boolean }>(
      `select pg_database_size($1) > 100e6 and current_setting('server_version_num')::int >= 150000 as large`,
      [name],
    )
    return rows[0]?.large === true ? 'strategy file_copy' : ''
  }

  async function migrateTemplate(): Promise<BenchDatabase> {
    const database = await createDatabase()
    const bus = createBus({ database: database.url, events: defineEvents({}), source: 'bench' })
    await bus.migrate()
    await bus.stop()
    return database
  }

  return {
    description: server.description,
    version: versions[0]?.version ?? '',
    settings: actual,
    fileSystem: await fileSystemOf(versions[0]?.data),
    warnings: ['fsync', 'synchronous_commit', 'full_page_writes'].flatMap((name) =>
      actual[name] === 'on'
        ? []
        : [`${name} is ${actual[name] ?? 'unknown'}: these are no figures of a durable server`],
    ),
    createDatabase,
    async createMigratedDatabase() {
      migrated ??= migrateTemplate()
      return createDatabase(await migrated)
    },
    async stop() {
      const template = await migrated?.catch(() => undefined)
      await template?.drop().catch(() => {})
      await admin.end().catch(() => {})
      await server.stop()
    },
  }
}

function openDatabase(serverUrl: string, name: string, dropIt: () => Promise<void>): BenchDatabase {
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  return {
    name,
    url: url.toString(),
    async query<R extends pg.QueryResultRow>(text: string, values?: unknown[]) {
      const client = new pg.Client({ connectionString: url.toString() })
      client.on('error', () => {})
      await client.connect()
      try {
        return (await client.query<R>(text, values)).rows
      } finally {
        await client.end()
      }
    },
    drop: dropIt,
  }
}

/** File system and free space of the folder, such as `ext4 on /dev/sda1`. */
async function fileSystemOf(folder: string | undefined): Promise<string | undefined> {
  if (folder === undefined || !existsSync(folder)) return undefined
  try {
    const { stdout } = await promisify(execFile)('df', ['-PT', folder])
    const [device, type] = stdout.trim().split('\n').at(-1)?.split(/\s+/) ?? []
    return device === undefined || type === undefined ? undefined : `${type} on ${device}`
  } catch {
    return undefined
  }
}
