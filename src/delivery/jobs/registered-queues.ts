import type { Database, Executor } from '../../database/database.ts'

type Boss = Pick<Database, 'bossSchema' | 'bossSchemaName'>

/** A queue of a subscription that the registry does not know. */
interface OrphanedQueue {
  readonly name: string
  /** Jobs that have not ended, counted up to 1,000. */
  readonly jobCount: number
}

/**
 * The queues of subscriptions that are neither registered nor being removed, up to a hundred, by name. Their jobs are run by nobody.
 */
export async function readOrphanedQueues(executor: Executor & Boss): Promise<readonly OrphanedQueue[]> {
  const { bossSchema } = executor
  const { rows } = await executor.query<{ name: string; job_count: number }>(
    `select q.name, (select count(*)::int from (
         select from ${bossSchema}.job j where j.name = q.name and j.state < 'completed' limit 1000) j) as job_count
     from (
       select q.name from ${bossSchema}.queue q
       where q.name like 'bus.%'
         and not exists (select from bus.subscriptions s where q.name in ('bus.' || s.name, 'bus.' || s.name || '.dead'))
         and not exists (
           select from bus.operations o where o.kind = 'remove' and o.state not in ('done', 'cancelled')
             and q.name in ('bus.' || (o.options->>'name'), 'bus.' || (o.options->>'name') || '.dead'))
       order by q.name limit 100
     ) q`,
  )
  return rows.map(({ name, job_count: jobCount }) => ({ name, jobCount }))
}

/** The queues that registered subscriptions should have and that are not there, or have no table, up to a hundred, by name. */
export async function readMissingQueues(executor: Executor & Boss): Promise<readonly string[]> {
  const { bossSchema, bossSchemaName } = executor
  const { rows } = await executor.query<{ name: string }>(
    `select w.name
     from (select 'bus.' || name as name from bus.subscriptions union all select 'bus.' || name || '.dead' from bus.subscriptions) w
     where not exists (
       select from ${bossSchema}.queue q
       where q.name = w.name and to_regclass(format('%I.%I', $1::text, q.table_name)) is not null)
     order by w.name limit 100`,
    [bossSchemaName],
  )
  return rows.map(({ name }) => name)
}

/** The statement by which a person deletes a queue with its jobs: a function that pg-boss offers. The bus does not send it. */
export function deleteQueueSql({ bossSchema }: Pick<Boss, 'bossSchema'>, name: string): string {
  return `select ${[bossSchema, 'delete_queue'].join('.')}('${name.replaceAll("'", "''")}')`
}
