import type { Database } from '../database/database.ts'
import { idleQueuesSql } from '../delivery/jobs/queue-state/idle-queues.ts'
import { readLimited } from './limited-read.ts'

/** Of so many it is looked up; the others count as having something. */
const maxQueues = 50

/** The names of those for which nothing waits. */
export async function readIdle(
  database: Pick<Database, 'query' | 'bossSchema'>,
  subscriptions: readonly { readonly id: number; readonly name: string }[],
): Promise<readonly string[]> {
  if (subscriptions.length === 0) return []
  const rows = await readLimited<{ name: string }>(
    database,
    idleQueuesSql(database, subscriptions.slice(0, maxQueues)),
  )
  return rows.map(({ name }) => name)
}
