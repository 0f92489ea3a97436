import { setTimeout as pause } from 'node:timers/promises'
import type { BusClient } from './bus-client.ts'
import type { Database } from './database.ts'
import { toBusError } from './database-errors.ts'
import { beginOn, beginWriting } from './session-settings.ts'
import { locks } from './locks.ts'

/** How often a process tries to take the lock. */
const turnPollMs = 50

/**
 * Runs `work` if no other process holds the lock of the bus, and holds it meanwhile. `work` uses other connections. Undefined if another
 * process holds it.
 */
export async function tryWithLock<T>(
  database: Database,
  key: (typeof locks)['retention'],
  work: () => Promise<T>,
): Promise<{ readonly result: T } | undefined> {
  const session = await database.openSession()
  try {
    if (!(await takeLock(session, key))) return undefined
    return { result: await work() }
  } finally {
    await session.end().catch(() => {})
  }
}

/**
 * Runs `work` while this process holds an exclusive lock of the bus. `work` uses other connections.
 *
 * The lock is transaction-level, and its transaction stays open and idle meanwhile. A session-level lock would leak
 * behind a pooler in transaction mode: nobody could release it, and every other process would wait forever.
 *
 * A waiting process polls instead of blocking in the server. A blocked statement holds a snapshot, and a CREATE INDEX
 * CONCURRENTLY under the lock would wait for that snapshot: a deadlock that no server detects. The holder has no
 * snapshot between its statements, because its isolation level is read committed.
 */
export async function withLock<T>(
  database: Database,
  key: (typeof locks)['migrate'] | (typeof locks)['registry'],
  work: () => Promise<T>,
): Promise<T> {
  const session = await database.openSession()
  try {
    for (;;) {
      if (await takeLock(session, key)) break
      await session.query('rollback')
      await pause(turnPollMs)
    }
    return await work()
  } finally {
    // The server ends the transaction with its session; so does a pooler.
    await session.end().catch(() => {})
  }
}

/**
 * Begins a transaction that holds the lock, if it is free. The transaction is open in both cases.
 * @throws a {@link DatabaseError}
 */
async function takeLock(session: BusClient, key: number): Promise<boolean> {
  const begin = beginOn(session, `${beginWriting}; set local idle_in_transaction_session_timeout = 0`)
  const results = (await session
    .query(`${begin}; select pg_try_advisory_xact_lock(${locks.namespace}, ${key}) as held`)
    .catch((error: unknown) => {
      throw toBusError(error)
    })) as unknown as readonly { readonly rows: readonly { held: boolean }[] }[]
  return results.at(-1)?.rows[0]?.held === true
}
