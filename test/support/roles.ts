import { randomUUID } from 'node:crypto'
import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { onTestFinished } from 'vitest'
import type { TestDatabase } from './database.ts'

/** A role that logs in, for one test. */
export interface Login {
  readonly name: string
  /** The database of the test, as this role. */
  readonly url: string
  readonly db: NodePgDatabase
  readonly rows: (text: string, values?: unknown[]) => Promise<Record<string, unknown>[]>
}

/** Makes a role that logs in and is a member of some others. Gone when the test is over. */
export async function createLogin(
  database: TestDatabase,
  memberOf: readonly string[] = [],
  attributes = '',
): Promise<Login> {
  const name = `test_${randomUUID().slice(0, 8)}`
  await database.rows(`create role ${name} login password 'test' ${attributes}`)
  for (const role of memberOf) await database.rows(`grant ${role} to ${name}`)
  const url = new URL(database.url)
  url.username = name
  url.password = 'test'
  const pool = new pg.Pool({ connectionString: url.toString(), max: 3 })
  pool.on('error', () => {})
  onTestFinished(async () => {
    await pool.end()
    await database.rows(`drop owned by ${name}`)
    await database.rows(`drop role ${name}`)
  })
  const rows = async (text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> =>
    (await pool.query<Record<string, unknown>>(text, values)).rows
  return { name, url: url.toString(), db: drizzle(pool), rows }
}

/** The SQLSTATE of each statement, run by itself; those that went through are `allowed`. */
export async function outcomesOf(
  { rows }: Pick<Login, 'rows'>,
  statements: readonly string[],
): Promise<Record<string, string>> {
  const outcomes: Record<string, string> = {}
  for (const statement of statements) {
    outcomes[statement] = await rows(statement).then(
      () => 'allowed',
      (error: unknown) => String((error as { code?: unknown }).code),
    )
  }
  return outcomes
}

/** Each statement with one outcome. */
export function allWith(outcome: string, statements: readonly string[]): Record<string, string> {
  return Object.fromEntries(statements.map((statement) => [statement, outcome]))
}
