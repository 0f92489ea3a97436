import type { PgBoss } from 'pg-boss'
import type { Database } from '../../database/database.ts'

/**
 * Up to this many queues, pg-boss looks after all of them once an hour, beside those where there is something to do: some thirty
 * statements each, which would be most of what an idle process sends if it were done more often.
 */
const fewQueues = 100
const fewIntervalMs = 60 * 60_000

/** How often pg-boss looks after all queues, however many: only then does it rebuild indexes. */
const fullIntervalMs = 24 * 60 * 60_000

/**
 * Lets pg-boss count, expire and delete jobs: at first, and then from time to time, in every queue where there are few; else in those
 * where there is something to do.
 */
export function createCleanup(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  boss: PgBoss,
): () => Promise<void> {
  const startedAt = performance.now()
  let fullAt: number | undefined
  return async () => {
    const { total, names } = await queuesToCleanUp(executor)
    const areFew = total <= fewQueues
    const lastFullAt = fullAt ?? (areFew ? Number.NEGATIVE_INFINITY : startedAt)
    if (performance.now() - lastFullAt > (areFew ? fewIntervalMs : fullIntervalMs)) {
      await boss.supervise()
      fullAt = performance.now()
      return
    }
    // Its turn at the indexes comes once a day, for all tables or for none.
    for (const name of names) await boss.supervise(name, { reindex: false })
  }
}

/**
 * The queues of all services that have jobs to run or to delete, or whose jobs have changed since pg-boss counted them:
 * each by the first or last entry of an index.
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
