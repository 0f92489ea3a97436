import pg from 'pg'
import { startPostgres, type PostgresServer } from '../../src/testing/postgres.ts'

/** The settings of the server, the same for every contestant. Durability is never traded: fsync and synchronous_commit stay on. */
const settings = {
  fsync: 'on',
  synchronous_commit: 'on',
  full_page_writes: 'on',
  shared_buffers: '512MB',
  max_wal_size: '4GB',
  max_connections: '200',
  autovacuum: 'on',
} as const

/** A server for a run of the benchmark. */
interface BenchServer {
  readonly description: string
  readonly version: string
  readonly settings: Readonly<Record<string, string>>
  /** An empty database, dropped by the function given with it. */
  readonly createDatabase: () => Promise<{ readonly url: string; readonly drop: () => Promise<void> }>
  readonly stop: () => Promise<void>
}

/** Starts a PostgreSQL of the benchmark's own. `DATABASE_URL` is respected, as everywhere: its settings are then its own. */
export async function startBenchServer(): Promise<BenchServer> {
  const server: PostgresServer = await startPostgres({
    settings: Object.entries(settings).map(([name, value]) => `${name}=${value}`),
  })
  const admin = new pg.Client({ connectionString: server.url })
  await admin.connect()
  const { rows: versions } = await admin.query<{ version: string }>(
    "select current_setting('server_version') as version",
  )
  const { rows } = await admin.query<{ name: string; value: string }>(
    'select name, current_setting(name) as value from pg_settings where name = any($1) order by name',
    [Object.keys(settings)],
  )
  let created = 0
  return {
    description: server.description,
    version: versions[0]?.version ?? '',
    settings: Object.fromEntries(rows.map(({ name, value }) => [name, value])),
    async createDatabase() {
      created += 1
      const name = `bench_${process.pid}_${created}`
      await admin.query(`create database ${name}`)
      const url = new URL(server.url)
      url.pathname = `/${name}`
      return {
        url: url.toString(),
        drop: async () => {
          await admin.query(`drop database if exists ${name} with (force)`)
          // Every contestant starts with the same amount of log to write back: none.
          await admin.query('checkpoint')
        },
      }
    },
    async stop() {
      await admin.end()
      await server.stop()
    },
  }
}
