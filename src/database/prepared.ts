import { createHash } from 'node:crypto'
import pg from 'pg'
import type { BusLogger } from '../foundation/logger.ts'

/** Names kept. The statements of the bus and of pg-boss's hot paths are some for each queue. */
const maxNames = 2000

/**
 * Prepares the statements that are sent again and again, so that the server parses and plans them once a connection.
 *
 * A pooler that hands every transaction another connection may not know the statements prepared on the one before. The
 * server's answer then says so, and from there on nothing is prepared. A statement of its own is repeated at once; a
 * transaction is repeated by its caller, as after any other loss. A name stands for its text alone, so it never runs anything else.
 */
export interface Preparer {
  /** Runs a statement on a connection of its pool, prepared where possible. */
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
            'a prepared statement was not there: a pooler stands between, statements are no longer prepared',
          )
        }
        // It did not run. On a connection, it has broken the transaction that may be open there.
        if (executor instanceof pg.Pool) return executor.query({ text, values })
        throw error
      }
    },
  }
}

/** `invalid_sql_statement_name`, `duplicate_prepared_statement`: the connection is not the one it was. */
function isUnknownStatement(error: unknown): boolean {
  const { code } = error as { code?: unknown }
  return code === '26000' || code === '42P05'
}

const preparers = new WeakMap<object, Preparer>()

/** Tells the preparer of the pool that a connection belongs to. */
export function setPreparer(client: object, preparer: Preparer): void {
  preparers.set(client, preparer)
}

/** Runs a statement on a connection of a pool of the bus, prepared where possible. */
export async function queryPrepared(
  client: pg.ClientBase,
  text: string,
  values: unknown[] = [],
): Promise<pg.QueryResult> {
  const preparer = preparers.get(client)
  return preparer === undefined ? client.query(text, values) : preparer.query(client, text, values)
}
