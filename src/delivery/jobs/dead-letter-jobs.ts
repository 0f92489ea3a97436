import type pg from 'pg'
import type { Database, Executor } from '../../database/database.ts'
import type { AttemptFailure } from '../attempts/failure.ts'
import type { JobData } from './job.ts'
import { deadLetterQueueName, queueName } from './queues.ts'

/** A dead letter that the transaction has taken out of its queue. */
export interface TakenDeadLetter {
  /** What its job knew, without what concerns past attempts. */
  readonly data: Partial<JobData>
  /** The failures that pg-boss keeps. */
  readonly failures: readonly AttemptFailure[]
}

interface TakenRow extends pg.QueryResultRow {
  readonly root_id: string
  readonly data: Partial<JobData>
  readonly failures: readonly AttemptFailure[] | null
}

type BossSchema = Pick<Database, 'bossSchema'>

/**
 * Takes dead letters of a subscription out of pg-boss: deletes their jobs, and locks them until the transaction ends, so that nobody else
 * redrives them. Returns those that were there, by the job that became the dead letter. Repeating it returns none.
 *
 * The jobs are found by pg-boss's index on `source_root_id`. No index can serve the condition on the name: with stale statistics one with
 * all dead letters of the queue would be read, for each slice of a redrive.
 */
export async function takeDeadLetterJobs(
  client: pg.ClientBase,
  { bossSchema }: BossSchema,
  subscription: string,
  jobIds: readonly string[],
): Promise<ReadonlyMap<string, TakenDeadLetter>> {
  const queue = deadLetterQueueName(subscription)
  const table = jobIds.length === 0 ? undefined : await findTable(client, { bossSchema }, queue)
  if (table === undefined) return new Map()
  const { rows } = await client.query<TakenRow>(
    `delete from ${table}
     where source_root_id = any($1::uuid[]) and name || '' = $2 and state < 'active'
     returning source_root_id as root_id, data - '{attempts,losses,isolatedAt,missCount,failures,declinedBy}'::text[] as data,
       coalesce(source_output->'failures', data->'failures') as failures`,
    [jobIds, queue],
  )
  return new Map(
    rows.map(({ root_id, data, failures }) => [
      root_id,
      { data, failures: Array.isArray(failures) ? failures : [] },
    ]),
  )
}

/** Which of some dead letters are in their queue, by the job that became each. Only reads. */
export async function findDeadLetterJobs(
  executor: Executor,
  { bossSchema }: BossSchema,
  subscription: string,
  jobIds: readonly string[],
): Promise<ReadonlySet<string>> {
  const queue = deadLetterQueueName(subscription)
  const table = jobIds.length === 0 ? undefined : await findTable(executor, { bossSchema }, queue)
  if (table === undefined) return new Set()
  const { rows } = await executor.query<{ root_id: string }>(
    `select source_root_id as root_id from ${table}
     where source_root_id = any($1::uuid[]) and name || '' = $2 and state < 'active'`,
    [jobIds, queue],
  )
  return new Set(rows.map(({ root_id }) => root_id))
}

/** The jobs that somebody has redriven dead letters to through pg-boss, and that have not ended: by the job that became the dead letter. */
export async function findRedrivenJobs(
  client: pg.ClientBase,
  { bossSchema }: BossSchema,
  subscription: string,
  jobIds: readonly string[],
): Promise<ReadonlyMap<string, string>> {
  if (jobIds.length === 0) return new Map()
  const { rows } = await client.query<{ id: string; root_id: string }>(
    `select id, coalesce(source_root_id, id) as root_id from ${bossSchema}.job
     where name = $1 and state < 'completed' and (source_root_id = any($2::uuid[]) or id = any($2::uuid[]))`,
    [queueName(subscription), jobIds],
  )
  return new Map(rows.map(({ id, root_id }) => [root_id, id]))
}

/** Whether the queue of a subscription exists, so that its events can be retried. */
export async function hasQueue(
  executor: Executor,
  { bossSchema }: BossSchema,
  subscription: string,
): Promise<boolean> {
  return (await findTable(executor, { bossSchema }, queueName(subscription))) !== undefined
}

/** The table that has the jobs of a queue, as SQL. Undefined if there is no such queue. */
async function findTable(
  executor: Executor,
  { bossSchema }: BossSchema,
  queue: string,
): Promise<string | undefined> {
  const { rows } = await executor.query<{ name: string }>(
    `select quote_ident(table_name) as name from ${bossSchema}.queue where name = $1`,
    [queue],
  )
  return rows[0] === undefined ? undefined : `${bossSchema}.${rows[0].name}`
}
