import { randomUUID } from 'node:crypto'
import type pg from 'pg'
import type { BusClient } from '../../database/bus-client.ts'
import type { Database } from '../../database/database.ts'
import { withTimeout } from '../../foundation/with-timeout.ts'
import { found } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

/** How long a session waits for one of the pooler's connections. A pooler that has only one gives none. */
const waitMs = 3000

/**
 * Whether prepared statements outlive a transaction on the way that the service takes. postgres.js prepares `commit` too: where the pooler gives the
 * next transaction another connection, which does not know it, the transaction is rolled back and reported as committed.
 *
 * @param service - the database as the service reaches it
 */
export function createPreparedStatementsCheck(service: Database): Check {
  return {
    name: 'prepared statements of the service',
    needs: 'supported server',
    async run() {
      if (!(await losesPreparedStatements(service))) return []
      return [
        found(
          'prepared-statements-lost',
          'The URL of the service leads through a pooler that forgets prepared statements: with postgres.js a COMMIT can fail and be reported as done, and state and event are lost',
          `postgres(url, { prepare: false }); or max_prepared_statements = 200 in PgBouncer 1.21 and newer; or a direct URL. node-postgres with Drizzle needs nothing.`,
        ),
      ]
    },
  }
}

/** So many sessions try to get the connection on which the statement was prepared: as with LISTEN, one may miss it by accident. */
const maxHolders = 3

/**
 * Prepares a statement, has other sessions take the connection that knows it, and runs it again. A pooler that keeps the connection for its
 * session gives it to none of them.
 */
async function losesPreparedStatements(database: Database): Promise<boolean> {
  const session = await database.openSession()
  const holders: BusClient[] = []
  // A new one for each run: the text decides what the pooler keeps, and another run may have left it there.
  const statement = { name: `doctor_${randomUUID().slice(0, 8)}`, text: 'select pg_backend_pid() as pid' }
  try {
    const first = await pidOf(session, statement)
    // A pooler tells its clients a process id of its own.
    if (first === session.backendPid) return false
    for (let held: number | undefined; held !== first && holders.length < maxHolders;) {
      const holder = await database.openSession()
      holders.push(holder)
      await limited(holder.query('begin'))
      held = await pidOf(holder, { text: statement.text })
    }
    await pidOf(session, statement)
    return false
  } catch (error) {
    // `invalid_sql_statement_name`
    if ((error as { readonly code?: unknown }).code === '26000') return true
    throw error
  } finally {
    await Promise.all(holders.map(async (holder) => forget(holder, statement.name)))
    void session.end().catch(() => {})
  }
}

/** Leaves nothing on the connection of the pooler. */
async function forget(holder: BusClient, name: string): Promise<void> {
  await limited(holder.query(`deallocate "${name}"`)).catch(() => {})
  await limited(holder.query('rollback')).catch(() => {})
  void holder.end().catch(() => {})
}

async function pidOf(session: BusClient, query: pg.QueryConfig): Promise<number | undefined> {
  const { rows } = await limited(session.query<{ pid: number }>(query))
  return rows[0]?.pid
}

async function limited<T>(work: Promise<T>): Promise<T> {
  return withTimeout(work, waitMs, (): never => {
    throw new Error(`the pooler gave no connection within ${waitMs} ms`)
  }) as Promise<T>
}
