import { setTimeout as pause } from 'node:timers/promises'
import type { Database } from './database.ts'
import { beginOn, beginWriting } from './session-settings.ts'
import { locks } from './locks.ts'

/** How often a process asks for its turn. */
const turnPollMs = 50

/**
 * Runs `work` while this process alone holds a lock of the bus. `work` uses other connections.
 *
 * The lock is a transaction's, and that transaction stays open and idle meanwhile. A session's lock would get lost behind
 * a pooler that hands every transaction another session: nobody could release it, and all others would wait for good.
 *
 * Whoever waits asks again and again instead of waiting in the server: a statement that waits holds a snapshot, for which
 * a CREATE INDEX CONCURRENTLY under the lock would wait in turn, a deadlock no server detects. The holder has none
 * between its statements, at the isolation level read committed.
 */
export async function withLock<T>(
  database: Database,
  key: (typeof locks)['migrate'] | (typeof locks)['registry'],
  work: () => Promise<T>,
): Promise<T> {
  const session = await database.openSession()
  try {
    for (;;) {
      const begin = beginOn(session, `${beginWriting}; set local idle_in_transaction_session_timeout = 0`)
      const results = (await session.query(
        `${begin}; select pg_try_advisory_xact_lock(${locks.namespace}, ${key}) as held`,
      )) as unknown as readonly { readonly rows: readonly { held: boolean }[] }[]
      if (results.at(-1)?.rows[0]?.held === true) break
      await session.query('rollback')
      await pause(turnPollMs)
    }
    return await work()
  } finally {
    // The server ends the transaction with its session; a pooler does too.
    await session.end().catch(() => {})
  }
}
