import pg from 'pg'
import { createBus } from '../bus.ts'
import { defineEvents } from '../events/catalogue.ts'

const settings = { application_name: 'testing-bossbus' }

/** Where databases are created and dropped: a connection costs the server as much as a drop, and is kept for the next one. */
const pools = new Map<string, pg.Pool>()

function poolOf(adminUrl: string): pg.Pool {
  const known = pools.get(adminUrl)
  if (known !== undefined) return known
  const pool = new pg.Pool({
    ...settings,
    connectionString: adminUrl,
    max: 2,
    idleTimeoutMillis: 2000,
    allowExitOnIdle: true,
  })
  pool.on('error', () => {})
  pools.set(adminUrl, pool)
  return pool
}

/**
 * Copies files, where the server does not take care that they are on the disk: half of the work of a copy through the log.
 * PostgreSQL 14 knows only the files.
 */
const strategySql = `select case when current_setting('fsync') = 'off' and current_setting('server_version_num')::int >= 150000
  then 'strategy file_copy' else '' end as strategy`

/**
 * Creates a database as a copy of another one, by default of the empty one that every server has, and returns its URL. Any number
 * may copy one template at a time, while nobody is connected to it.
 *
 * @param adminUrl - a database on the server; the role must be allowed to create databases
 */
export async function createDatabase(
  adminUrl: string,
  name: string,
  template = 'template0',
): Promise<string> {
  const pool = poolOf(adminUrl)
  const { rows } = await pool.query<{ strategy: string }>(strategySql)
  await pool.query(`create database ${name} template ${template} ${rows[0]?.strategy ?? ''}`)
  return databaseUrl(adminUrl, name)
}

/** Drops a database if it is there. Its users are disconnected. */
export async function dropDatabase(adminUrl: string, name: string): Promise<void> {
  await poolOf(adminUrl).query(`drop database if exists ${name} with (force)`)
}

/** Brings a database up to this version of the bus, and of pg-boss. */
export async function migrate(url: string): Promise<void> {
  const bus = createBus({ database: url, events: defineEvents({}), source: 'bossbus-testing' })
  try {
    await bus.migrate()
  } finally {
    await bus.stop()
  }
}

/** The URL of another database on the same server, for the same role. */
export function databaseUrl(serverUrl: string, name: string): string {
  return Object.assign(new URL(serverUrl), { pathname: `/${name}` }).toString()
}

/** Runs statements on a connection of their own. */
export async function asAdmin(url: string, work: (admin: pg.Client) => Promise<void>): Promise<void> {
  const admin = new pg.Client({ ...settings, connectionString: url })
  admin.on('error', () => {})
  await admin.connect()
  try {
    await work(admin)
  } finally {
    await admin.end()
  }
}
