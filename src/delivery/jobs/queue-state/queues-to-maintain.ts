import type { Database } from '../../../database/database.ts'

/**
 * The queues of all services that have jobs to run or to delete, or whose jobs have changed since pg-boss counted them.
 * Each condition reads the first or last entry of an index.
 */
export async function findQueuesToMaintain(
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
