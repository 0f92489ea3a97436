import { createHash } from 'node:crypto'
import pg from 'pg'
import type { BusLogger } from '../foundation/logger.ts'

/** Maximum number of statement names. The bus and pg-boss have a few frequent statements for each queue. */
const maxNames = 2000

/**
 * Prepares frequent statements, so that the server parses and plans them once per connection.
 *
 * A pooler in transaction mode may use another server connection, which does not know the statement. The server's error
 * shows that, and from then on nothing is prepared. A single statement is retried at once; a transaction is retried by
 * its caller, as after any lost connection. A name is derived from the text alone, so it never runs another statement.
 */
export interface Preparer {
  /** Runs a statement on a connection of its pool, prepared if possible. */
  query: (executor: pg.ClientBase | pg.Pool, text: string, values: unknown[]) => Promise<pg.QueryResult>
}

export function createPreparer(logger: BusLogger): Preparer {
  const names = new Map<string, string>()
  let preparing = true

  function nameOf(text: string): string | undefined {
    if (!preparing) return undefined
    const known = names.get(text)
    if (known !== undefined || names.size >= maxNames) return known
    const name = `bus_${createHash('sha256').update(text).digest('hex').slice(0, 24)}`
    names.set(text, name)
    return name
  }

  return {
    async query(executor, text, values) {
      const name = nameOf(text)
      try {
        return await executor.query(name === undefined ? { text, values } : { name, text, values })
      } catch (error) {
        if (name === undefined || !isUnknownStatement(error)) throw error
        if (preparing) {
          preparing = false
          logger.info(
            {},
            'a prepared statement was missing: behind this pooler statements are no longer prepared',
          )
        }
        // The statement did not run. On a single connection the error has aborted the transaction that may be open
        // there.
        if (executor instanceof pg.Pool) return executor.query({ text, values })
        throw error
      }
    },
  }
}

/** `invalid_sql_statement_name`, `duplicate_prepared_statement`: the server connection has changed. */
function isUnknownStatement(error: unknown): boolean {
  const { code } = error as { code?: unknown }
  return code === '26000' || code === '42P05'
}

const preparers = new WeakMap<object, Preparer>()

/** Sets the preparer of the pool that a connection belongs to. */
export function setPreparer(client: object, preparer: Preparer): void {
  preparers.set(client, preparer)
}

/** Runs a statement on a connection of a pool of the bus, prepared if possible. */
export async function queryPrepared(
  client: pg.ClientBase,
  text: string,
  values: unknown[] = [],
): Promise<pg.QueryResult> {
  const preparer = preparers.get(client)
  return preparer === undefined ? client.query(text, values) : preparer.query(client, text, values)
}
