import { randomUUID } from 'node:crypto'
import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { inject, onTestFinished } from 'vitest'

/** A database for one test, dropped when the test is over. */
export interface TestDatabase {
  readonly url: string
  /** Drizzle on postgres.js, as a service would have it. */
  readonly db: PostgresJsDatabase
  readonly sql: postgres.Sql
  /** Rows of a statement that the test writes by hand. */
  readonly rows: (text: string, values?: unknown[]) => Promise<Record<string, unknown>[]>
  /** The single value of a statement that gives a count. */
  readonly count: (text: string, values?: unknown[]) => Promise<number>
}

/**
 * Clones the migrated template, or makes an empty database.
 *
 * @param options.template - another database to clone
 * @param options.max - connections of the postgres.js client
 */
export async function createTestDatabase(
  options: { empty?: boolean; template?: string | undefined; max?: number } = {},
): Promise<TestDatabase> {
  const serverUrl = inject('serverUrl')
  const name = `test_${randomUUID().replaceAll('-', '')}`
  const template = options.empty === true ? 'template0' : (options.template ?? inject('templateDatabase'))
  await asAdmin(serverUrl, async (admin) => cloneDatabase(admin, name, template))
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  const sql = postgres(url.toString(), { max: options.max ?? 5, onnotice: () => {} })
  const pool = new pg.Pool({ connectionString: url.toString(), max: 3 })
  pool.on('error', () => {})
  onTestFinished(async () => {
    await sql.end({ timeout: 2 })
    await pool.end()
    await asAdmin(serverUrl, async (admin) => {
      await untilUnused(admin, name)
      await admin.query(`drop database if exists ${name} with (force)`)
    })
  })
  const rows = async (text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> =>
    (await pool.query<Record<string, unknown>>(text, values)).rows
  return {
    url: url.toString(),
    db: drizzle({ client: sql }),
    sql,
    rows,
    count: async (text, values) => Number(Object.values((await rows(text, values))[0] ?? {})[0]),
  }
}

/** A pool resolves its end before its connections are closed: what ends by itself is not to be told that it was cut off. */
async function untilUnused(admin: pg.Client, name: string): Promise<void> {
  const connections = `select from pg_stat_activity where datname = $1 and backend_type = 'client backend' limit 1`
  const isUnused = async (): Promise<boolean> => (await admin.query(connections, [name])).rowCount === 0
  // What a test has left open is cut off.
  await until('nobody is connected', isUnused, 1000).catch(() => {})
}

/** CREATE DATABASE refuses a template that another clone is reading: wait for one's turn. */
export async function cloneDatabase(admin: pg.Client, name: string, template: string): Promise<void> {
  await admin.query('select pg_advisory_lock(42)')
  await admin.query(`create database ${name} template ${template}`)
}

export async function asAdmin(url: string, work: (admin: pg.Client) => Promise<void>): Promise<void> {
  const admin = new pg.Client({ connectionString: url })
  await admin.connect()
  try {
    await work(admin)
  } finally {
    await admin.end()
  }
}

/** A test may hold the clock: see held-clock.ts. */
const realNow = performance.now.bind(performance)

/** Resolves as soon as the condition holds. @throws when it does not within the time */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 60_000,
): Promise<void> {
  const deadline = realNow() + timeoutMs
  while (!(await condition())) {
    if (realNow() > deadline) throw new Error(`Timed out after ${timeoutMs} ms waiting until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
