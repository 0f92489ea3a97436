import pg from 'pg'
import { createBus } from '../bus.ts'
import { defineEvents } from '../events/catalogue.ts'

/** The number of a lock in the server's first database: databases are created one at a time. */
const createLock = 1_651_864_321

/**
 * Creates a database as a copy of another one, by default of the empty one that every server has, and returns its URL. The server
 * refuses a template that another copy is reading: this waits for its turn.
 *
 * @param adminUrl - a database on the server; the role must be allowed to create databases
 * @param template - its name, or how to find it while no other database is created
 */
export async function createDatabase(
  adminUrl: string,
  name: string,
  template: string | ((admin: pg.Client) => Promise<string>) = 'template0',
): Promise<string> {
  await asAdmin(adminUrl, async (admin) => {
    await admin.query('select pg_advisory_lock($1)', [createLock])
    const source = typeof template === 'string' ? template : await template(admin)
    await admin.query(`create database ${name} template ${source}`)
  })
  return databaseUrl(adminUrl, name)
}

/** Drops a database if it is there. Its users are disconnected. */
export async function dropDatabase(adminUrl: string, name: string): Promise<void> {
  await asAdmin(adminUrl, async (admin) => {
    await admin.query(`drop database if exists ${name} with (force)`)
  })
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
  const admin = new pg.Client({ connectionString: url, application_name: 'testing-bossbus' })
  admin.on('error', () => {})
  await admin.connect()
  try {
    await work(admin)
  } finally {
    await admin.end()
  }
}
