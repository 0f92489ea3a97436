import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { inject, onTestFinished } from 'vitest'
import { createTestDatabase as cloneDatabase } from '../../src/testing/test-database.ts'

/** A database for one test, dropped when the test is over. */
export interface TestDatabase {
  readonly url: string
  /** Drizzle on postgres.js, as a service would have it. */
  readonly db: PostgresJsDatabase
  readonly sql: postgres.Sql
  /** Rows of a statement that the test writes by hand. */
  readonly rows: (text: string, values?: readonly unknown[]) => Promise<Record<string, unknown>[]>
  /** The single value of a statement that gives a count. */
  readonly count: (text: string, values?: readonly unknown[]) => Promise<number>
}

/**
 * Clones the migrated template, or makes an empty database.
 *
 * @param options.serverUrl - another server than that of the run
 * @param options.template - another database to clone
 * @param options.max - connections of the postgres.js client
 */
export async function createTestDatabase(
  options: {
    serverUrl?: string | undefined
    empty?: boolean
    template?: string | undefined
    max?: number
  } = {},
): Promise<TestDatabase> {
  const template = options.empty === true ? 'template0' : (options.template ?? inject('templateDatabase'))
  const serverUrl = options.serverUrl ?? inject('serverUrl')
  const { url, query: rows, drop } = await cloneDatabase(serverUrl, template)
  const sql = postgres(url, { max: options.max ?? 5, onnotice: () => {} })
  onTestFinished(async () => {
    await sql.end({ timeout: 2 })
    // What a test has left open is cut off.
    await until('nobody else is connected', async () => (await rows(othersSql)).length === 0, 1000).catch(
      () => {},
    )
    await drop()
  })
  return {
    url,
    db: drizzle({ client: sql }),
    sql,
    rows,
    count: async (text, values) => countIn(await rows(text, values)),
  }
}

/** A pool resolves its end before its connections are closed: what ends by itself is not to be told that it was cut off. */
const othersSql = `select from pg_stat_activity where datname = current_database() and backend_type = 'client backend'
  and pid <> pg_backend_pid() and application_name <> 'testing-bossbus' limit 1`

/** The number of a statement that gives one. */
export function countIn([row]: readonly Record<string, unknown>[]): number {
  return Number(Object.values(row ?? {})[0])
}

/** A test may hold the clock: see held-clock.ts. */
const realNow = performance.now.bind(performance)

/** How often a condition is looked at: most of them are statements, and many tests look at the same time. */
const minLookMs = 10
const maxLookMs = 50

/** Resolves within a twentieth of the time it took for the condition to hold. @throws when it does not within the time */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 120_000,
): Promise<void> {
  const beganAt = realNow()
  while (!(await condition())) {
    const waitedMs = realNow() - beganAt
    if (waitedMs > timeoutMs) throw new Error(`Timed out after ${timeoutMs} ms waiting until ${what}`)
    const lookMs = Math.min(maxLookMs, Math.max(minLookMs, waitedMs / 20))
    await new Promise((resolve) => setTimeout(resolve, lookMs))
  }
}
