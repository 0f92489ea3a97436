import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import { createReservedPermits, type MemberPermits } from '../concurrency/reserved-permits.ts'
import { beginEventTransaction, type EventTransaction } from './handler-transaction.ts'

/** The connections for the transactions of one subscription's handlers. */
export interface HandlerConnections {
  /** To be acquired before `begin`, and released after the transaction is over. Left when the subscription is no longer served. */
  readonly permits: MemberPermits
  begin: (name: string, idleLimitSeconds: number) => Promise<EventTransaction>
  /**
   * Ends the sessions of this role in which a transaction is open whose name starts so, in whatever process: that frees their locks, and they cannot commit any more.
   */
  endTransactions: (namePrefix: string) => Promise<void>
}

/** A pool apart from the bus's own, so that handlers never keep relay, heartbeats and settlements waiting. */
export interface HandlerPool {
  createMember: () => HandlerConnections
  close: () => Promise<void>
}

/** Opens no connection yet. Each subscription has one reserved where there are enough; the others are shared. */
export function createHandlerPool(database: Database, subscriptionCount: number): HandlerPool {
  const pool: pg.Pool = database.openHandlerPool()
  const createPermits = createReservedPermits(pool.options.max, subscriptionCount)
  return {
    createMember: () => ({
      permits: createPermits(),
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
