import type { PgBoss } from 'pg-boss'
import type { Database } from '../../database/database.ts'
import { createReceiptPacker } from '../ledger/pack-receipts.ts'
import { pruneRollups } from '../ledger/rollups.ts'

/**
 * Up to this number of queues, pg-boss maintains all of them once an hour, and more often those with work to do.
 * Maintaining one takes some thirty statements, which would be most of the load of an idle process if done more often.
 */
const fewQueues = 100
const fewIntervalMs = 60 * 60_000

/** How often receipts that came one by one are packed. */
const packIntervalMs = 60 * 60_000

/** How often pg-boss maintains all queues, however many there are: only then does it rebuild indexes. */
const fullIntervalMs = 24 * 60 * 60_000

/**
 * Returns a function that packs receipts, deletes old statistics, and makes pg-boss count, expire and delete jobs. If there are few queues, it covers all of them
 * at first and then periodically; otherwise only those with work to do.
 */
export function createCleanup(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  boss: PgBoss,
): () => Promise<void> {
  const startedAt = performance.now()
  let fullAt: number | undefined
  let lastPackAt = Number.NEGATIVE_INFINITY
  const packReceipts = createReceiptPacker(executor)
  return async () => {
    await maintainQueues()
    if (performance.now() - lastPackAt < packIntervalMs) return
    lastPackAt = performance.now()
    await packReceipts()
  }

  async function maintainQueues(): Promise<void> {
    const { total, names } = await queuesToCleanUp(executor)
    const areFew = total <= fewQueues
    const lastFullAt = fullAt ?? (areFew ? Number.NEGATIVE_INFINITY : startedAt)
    await pruneRollups(executor)
    if (performance.now() - lastFullAt > (areFew ? fewIntervalMs : fullIntervalMs)) {
      await boss.supervise()
      fullAt = performance.now()
      return
    }
    // Reindexing happens once a day, for all tables or for none.
    for (const name of names) await boss.supervise(name, { reindex: false })
  }
}

/**
 * The queues of all services that have jobs to run or to delete, or whose jobs have changed since pg-boss counted them.
 * Each condition reads the first or last entry of an index.
 */
async function queuesToCleanUp(
  executor: Pick<Database, 'query' | 'bossSchema'>,
): Promise<{ readonly total: number; readonly names: readonly string[] }> {
  const { rows } = await executor.query<{ total: number; names: string[] }>(
    `select (select count(*)::int from ${executor.bossSchema}.queue) as total,
       array(select r.queue->>'name' from bus.read_each(array(
         select format($queue$
           select q.name from ${executor.bossSchema}.queue q
           where q.table_name = %1$L and q.name like 'bus.%%' and (
             exists (select from ${executor.bossSchema}.%1$I where name = q.name and state <= 'active')
             or (select min(completed_on) from ${executor.bossSchema}.%1$I where name = q.name) < now() - q.deletion_seconds * interval '1 second'
             or greatest(
               (select max(created_on) from ${executor.bossSchema}.%1$I where name = q.name),
               (select max(completed_on) from ${executor.bossSchema}.%1$I where name = q.name)) > coalesce(q.monitor_on, '-infinity'))
         $queue$, t.table_name)
         from (select distinct table_name from ${executor.bossSchema}.queue where name like 'bus.%') t
       )) as r (queue)) as names`,
  )
  return { total: rows[0]?.total ?? 0, names: rows[0]?.names ?? [] }
}
