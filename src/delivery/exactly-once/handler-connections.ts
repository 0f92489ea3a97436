import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import { createShares, type Share } from '../concurrency/reserved-permits.ts'
import { beginEventTransaction, type EventTransaction } from './handler-transaction.ts'

/** The connections for the transactions of one subscription's handlers. */
export interface HandlerConnections {
  /** Must be taken before `begin`, and given back after the transaction is over. */
  readonly share: Share
  begin: (name: string, idleLimitSeconds: number) => Promise<EventTransaction>
  /**
   * Ends the sessions of this role in which a transaction is open whose name starts so, wherever they came from: their
   * locks are free, and they cannot commit any more.
   */
  endTransactions: (namePrefix: string) => Promise<void>
}

/** A pool apart from the bus's own, so that handlers never keep relay, heartbeats and settlements waiting. */
export interface HandlerPool {
  connectionsOf: () => HandlerConnections
  close: () => Promise<void>
}

/** Opens no connection yet. Each subscription has one for itself where there are enough, the rest are for whoever comes first. */
export function createHandlerPool(database: Database, subscriptionCount: number): HandlerPool {
  const pool: pg.Pool = database.openHandlerPool()
  const newShare = createShares(pool.options.max, subscriptionCount)
  return {
    connectionsOf: () => ({
      share: newShare(),
      begin: async (name, idleLimitSeconds) =>
        beginEventTransaction(pool, name, idleLimitSeconds, database.drizzle, database.faultPoint),
      async endTransactions(namePrefix) {
        await database.query(
          `select pg_terminate_backend(pid, 1000) from pg_stat_activity
           where datname = current_database() and usename = session_user and starts_with(application_name, $1)`,
          [namePrefix],
        )
      },
    }),
    close: async () => pool.end(),
  }
}
