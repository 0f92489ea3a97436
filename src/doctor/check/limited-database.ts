import type pg from 'pg'
import type { BusClient } from '../../database/bus-client.ts'
import type { Database } from '../../database/database.ts'
import { toBusError } from '../../database/database-errors.ts'
import type { CheckContext } from './check.ts'

/** How long a statement may take, and how long it may wait for a lock. */
const statementMs = 5000
const lockMs = 500

/** For one transaction, so that a pooler does not pass them on. Only PostgreSQL's own functions are found without their schema. */
const limitsSql = `set local statement_timeout = ${statementMs}; set local lock_timeout = ${lockMs}; set local search_path = pg_catalog, pg_temp`

interface Answer {
  readonly rows: pg.QueryResultRow[]
}

/** A statement without parameters, in one round trip: several statements in one message are one transaction. */
export function createRead({ query }: Pick<Database, 'query'>): CheckContext['read'] {
  return async <R extends pg.QueryResultRow>(statement: string) => {
    const answers = await sendLimited(query, statement)
    return (answers.at(-1)?.rows ?? []) as R[]
  }
}

/** The answers to the statements of a text. */
async function sendLimited(query: Database['query'], text: string): Promise<readonly Answer[]> {
  const answers = (await query(`${limitsSql}; ${text}`)) as unknown as readonly Answer[]
  return answers.slice(limitsSql.split(';').length)
}

/** The same database, whose statements with parameters have these limits too: each in a transaction of its own. */
export function limitStatements(database: Database): Database {
  return {
    ...database,
    async query<R extends pg.QueryResultRow>(text: string, values?: unknown[]) {
      if (values === undefined) {
        // As node-postgres: several statements have several answers.
        const answers = await sendLimited(database.query, text)
        return (answers.length === 1 ? answers[0] : answers) as unknown as { readonly rows: R[] }
      }
      const client = await database.pool.connect().catch((error: unknown) => {
        throw toBusError(error)
      })
      try {
        await client.query(`begin; ${limitsSql}`)
        const { rows } = await client.query<R>(text, values)
        await client.query('commit')
        client.release()
        return { rows }
      } catch (error) {
        await client.query('rollback').then(
          () => client.release(),
          () => client.release(true),
        )
        throw toBusError(error)
      }
    },
  }
}

/** Whether a connection leads through a pooler: its settings could not be set for the session. */
export async function isPooled({ pool }: Database): Promise<boolean> {
  const client = (await pool.connect().catch((error: unknown) => {
    throw toBusError(error)
  })) as pg.PoolClient & BusClient
  try {
    return client.localSettingsSql !== undefined
  } finally {
    client.release()
  }
}
