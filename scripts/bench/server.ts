import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import pg from 'pg'
import { databaseUrl, migrate } from '../../src/testing/databases.ts'
import { startPostgres } from '../../src/testing/postgres.ts'
import type { PostgresServer } from '../../src/testing/postgres-server.ts'

/**
 * The settings of the server, the same for every contestant. Durability is never reduced: fsync, synchronous_commit and
 * full_page_writes stay on. Statements are counted only in databases that request it.
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

/** A connection of the benchmark itself. */
export interface Session {
  readonly query: <R extends pg.QueryResultRow>(text: string, values?: unknown[]) => Promise<R[]>
  readonly close: () => Promise<void>
}

/** A database of a run. */
export interface BenchDatabase {
  readonly name: string
  readonly url: string
  readonly openSession: () => Promise<Session>
  /** Runs one statement in a session of its own. */
  readonly query: Session['query']
  readonly drop: () => Promise<void>
}

/** The server's statistics of some statements. */
interface CountedStatements {
  readonly callCount: number
  readonly executionMs: number
}

/** A server for a run of the benchmark. */
export interface BenchServer {
  readonly description: string
  readonly version: string
  readonly settings: Readonly<Record<string, string>>
  /** The file system of the data, as reported by `df`, if the server is on this machine. */
  readonly fileSystem: string | undefined
  /** Reasons why the figures may not represent a durable server. */
  readonly warnings: readonly string[]
  /** Creates an empty database, or a copy of another one that has no connections. */
  readonly createDatabase: (template?: BenchDatabase) => Promise<BenchDatabase>
  /** Creates a database with the schemas of the bus and of pg-boss. */
  readonly createMigratedDatabase: () => Promise<BenchDatabase>
  /** Creates a copy of a migrated database that was prepared under this name, once for the whole run. */
  readonly createPreparedDatabase: (
    name: string,
    prepare: (database: BenchDatabase) => Promise<void>,
  ) => Promise<BenchDatabase>
  /** Makes the server count the statements of new sessions of a database: those of clients, or also nested ones. */
  readonly countStatements: (database: BenchDatabase, which: 'top' | 'all') => Promise<void>
  /** Returns the counted statements whose text matches. Undefined if the server does not count. */
  readonly countedStatements: (
    database: BenchDatabase,
    pattern?: string,
  ) => Promise<CountedStatements | undefined>
  readonly stop: () => Promise<void>
}

/** Starts a PostgreSQL for the benchmark. `DATABASE_URL` takes precedence, as everywhere; that server keeps its settings. */
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
  const templates = new Map<string, Promise<BenchDatabase>>()
  // A server of somebody else is left unchanged, unless it already counts.
  const counts =
    actual['shared_preload_libraries']?.includes('pg_stat_statements') === true &&
    (await admin.query('create extension if not exists pg_stat_statements').then(
      () => true,
      () => false,
    ))

  async function createDatabase(template?: BenchDatabase): Promise<BenchDatabase> {
    createdCount += 1
    const name = `bench_${process.pid}_${createdCount}`
    await admin.query(
      `create database ${name} ${template === undefined ? '' : `template ${template.name} ${await copyStrategy(template)}`}`,
    )
    return openDatabase(server.url, name, async () => {
      await admin.query(`drop database if exists ${name} with (force)`)
      // Every contestant starts without write-ahead log to flush.
      await admin.query('checkpoint')
    })
  }

  /**
   * Copying through the log is faster for a small database, file by file for a large one. PostgreSQL 14 only supports
   * the latter.
   */
  async function copyStrategy({ name }: BenchDatabase): Promise<string> {
    const { rows } = await admin.query<{ large: boolean }>(
      `select pg_database_size($1) > 100e6 and current_setting('server_version_num')::int >= 150000 as large`,
      [name],
    )
    return rows[0]?.large === true ? 'strategy file_copy' : ''
  }

  /** A copy of the database that `make` creates on the first call. */
  async function copyOf(name: string, make: () => Promise<BenchDatabase>): Promise<BenchDatabase> {
    const template = templates.get(name) ?? make()
    templates.set(name, template)
    return createDatabase(await template)
  }

  async function createMigratedDatabase(): Promise<BenchDatabase> {
    return copyOf('migrated', async () => {
      const database = await createDatabase()
      await migrate(database.url)
      return database
    })
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
    createMigratedDatabase,
    createPreparedDatabase: async (name, prepare) =>
      copyOf(name, async () => {
        const database = await createMigratedDatabase()
        await prepare(database)
        return database
      }),
    async countStatements({ name }, which) {
      if (counts) await admin.query(`alter database ${name} set pg_stat_statements.track = '${which}'`)
    },
    async countedStatements({ name }, pattern = '') {
      if (!counts) return undefined
      const { rows } = await admin.query<{ calls: string; ms: number }>(
        `select coalesce(sum(calls), 0) as calls, coalesce(sum(total_exec_time), 0) as ms from pg_stat_statements
         where dbid = (select oid from pg_database where datname = $1) and query ~* $2`,
        [name, pattern],
      )
      return { callCount: Number(rows[0]?.calls), executionMs: Number(rows[0]?.ms) }
    },
    async stop() {
      for (const template of templates.values())
        await template.then(async ({ drop }) => drop()).catch(() => {})
      await admin.end().catch(() => {})
      await server.stop()
    },
  }
}

function openDatabase(serverUrl: string, name: string, dropIt: () => Promise<void>): BenchDatabase {
  const url = databaseUrl(serverUrl, name)
  const openSession = async (): Promise<Session> => connect(url)
  return {
    name,
    url,
    openSession,
    async query<R extends pg.QueryResultRow>(text: string, values?: unknown[]) {
      const session = await openSession()
      try {
        return await session.query<R>(text, values)
      } finally {
        await session.close()
      }
    },
    drop: dropIt,
  }
}

async function connect(url: string): Promise<Session> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  return {
    query: async <R extends pg.QueryResultRow>(text: string, values?: unknown[]) =>
      (await client.query<R>(text, values)).rows,
    close: async () => client.end().catch(() => {}),
  }
}

/** The file system of a folder, such as `ext4 on /dev/sda1`. */
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
