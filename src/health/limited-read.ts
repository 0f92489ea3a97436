import type pg from 'pg'
import type { Database } from '../database/database.ts'

/** How long a read may take, and how long it may wait for a lock. */
const limitMs = 1500
const lockLimitMs = 300

/**
 * Runs a statement without parameters within these limits, in one round trip: several statements in one message are one transaction, in which
 * the settings are local.
 */
export async function readLimited<R extends pg.QueryResultRow>(
  database: Pick<Database, 'query'>,
  statement: string,
  timeoutMs = limitMs,
): Promise<readonly R[]> {
  const answers = (await database.query(
    `set local statement_timeout = ${timeoutMs}; set local lock_timeout = ${lockLimitMs}; ${statement}`,
  )) as unknown as readonly { readonly rows: R[] }[]
  return answers.at(-1)?.rows ?? []
}
