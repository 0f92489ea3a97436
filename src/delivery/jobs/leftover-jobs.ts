import type pg from 'pg'
import type { Database, Executor } from '../../database/database.ts'
import { deadLetterQueueName, queueName } from './queues.ts'

type Boss = Pick<Database, 'bossSchema'>

/** How many unfinished jobs a queue has: at most `max` are counted. */
export async function countJobs(
  executor: Executor & Boss,
  queue: string,
  max: number,
): Promise<{ readonly jobCount: number; readonly eventCount: number }> {
  const { rows } = await executor.query<{ jobs: string; events: string }>(
    `select count(*) as jobs, coalesce(sum(jsonb_array_length(j.data->'eventIds')), 0) as events
     from (select data from ${executor.bossSchema}.job where name = $1 and state < 'completed' limit ${max}) j`,
    [queue],
  )
  return { jobCount: Number(rows[0]?.jobs ?? 0), eventCount: Number(rows[0]?.events ?? 0) }
}

/** The events of the first unfinished jobs of some queues. */
export async function sampleEventIds(
  { query, bossSchema }: Pick<Database, 'query' | 'bossSchema'>,
  queues: readonly string[],
  max: { readonly jobs: number; readonly events: number },
): Promise<readonly string[]> {
  const { rows } = await query<{ id: string }>(
    `select distinct e.id from (
       select j.data from ${bossSchema}.job j where j.name = any($1) and j.state < 'completed' limit ${max.jobs}
     ) j cross join lateral jsonb_array_elements_text(j.data->'eventIds') as e (id) limit ${max.events}`,
    [queues],
  )
  return rows.map(({ id }) => id)
}

/** An event of a job, and its key in `bus.ordered_keys` if the job was that of a key. */
export interface TakenEvent {
  readonly id: string
  readonly keyId: string | undefined
}

/**
 * Deletes jobs of a queue in the order of the primary key, of about `maxEvents` events, and at least one: ended ones too, so that the next
 * call does not read them again. Returns the events of those that had not ended. Undefined if the queue has no jobs.
 */
export async function takeJobs(
  client: pg.ClientBase,
  { bossSchema }: Boss,
  queue: string,
  maxEvents: number,
): Promise<readonly TakenEvent[] | undefined> {
  const { rows } = await client.query<{ ids: readonly string[]; key_id: string | null; is_ended: boolean }>(
    `delete from ${bossSchema}.job where name = $1 and id = any(array(
       select w.id from (
         select f.id, sum(f.size) over (order by f.id) - f.size as before
         from (
           select id, jsonb_array_length(data->'eventIds') as size from ${bossSchema}.job
           where name = $1 order by id limit $2 for update skip locked
         ) f
       ) w where w.before < $2))
     returning data->'eventIds' as ids, data->>'keyId' as key_id, state >= 'completed' as is_ended`,
    [queue, maxEvents],
  )
  if (rows.length === 0) return undefined
  return rows.flatMap(({ ids, key_id, is_ended }) =>
    is_ended ? [] : ids.map((id) => ({ id, keyId: key_id ?? undefined })),
  )
}

/** Whether a queue has jobs that have not ended: after {@link takeJobs} has taken all, those that another session has locked. */
export async function hasUnfinishedJobs(
  client: pg.ClientBase,
  { bossSchema }: Boss,
  queue: string,
): Promise<boolean> {
  const { rows } = await client.query<{ found: boolean }>(
    `select exists (select from ${bossSchema}.job where name = $1 and state < 'completed') as found`,
    [queue],
  )
  return rows[0]?.found === true
}

/** The table of a queue that has one of its own, as SQL. */
async function tableOf(
  client: pg.ClientBase,
  { bossSchema }: Boss,
  queue: string,
): Promise<string | undefined> {
  const { rows } = await client.query<{ table_name: string }>(
    `select format('%I', q.table_name) as table_name from ${bossSchema}.queue q
     where q.name = $1 and q.table_name <> 'job_common' and to_regclass(format('${bossSchema}.%I', q.table_name)) is not null`,
    [queue],
  )
  return rows[0] === undefined ? undefined : `${bossSchema}.${rows[0].table_name}`
}

/**
 * Locks the queue of a subscription until the transaction ends: no relay inserts a job into it meanwhile. The caller sets a lock
 * timeout.
 */
export async function lockQueue(client: pg.ClientBase, boss: Boss, subscription: string): Promise<void> {
  const table = await tableOf(client, boss, queueName(subscription))
  if (table !== undefined) await client.query(`lock table ${table} in access exclusive mode`)
}

/**
 * Deletes both queues of a subscription, with the ended jobs that are left in them. Afterwards an insert of a relay that has loaded the
 * registry before fails, and is repeated with the registry as it is. Locks the tables of jobs of all queues, after that of this
 * queue, until the transaction ends; the caller sets a lock timeout, and has made sure that no job is left that has not ended: pg-boss's foreign
 * key refuses to delete the queue of one. Repeating it changes nothing.
 */
export async function dropQueues(client: pg.ClientBase, boss: Boss, subscription: string): Promise<void> {
  const { bossSchema } = boss
  const names = [queueName(subscription), deadLetterQueueName(subscription)]
  const table = await tableOf(client, boss, queueName(subscription))
  if (table !== undefined) await client.query(`drop table ${table}`)
  for (const name of names) {
    await client.query(`delete from ${bossSchema}.job where name = $1 and state >= 'completed'`, [name])
    await client.query(`delete from ${bossSchema}.queue where name = $1`, [name])
  }
}

/** Moves the unfinished jobs and the dead letters of a subscription to the queues of another name, as they are. Returns their number. */
export async function moveJobs(
  client: pg.ClientBase,
  { bossSchema }: Boss,
  from: string,
  to: string,
): Promise<number> {
  const { rowCount: waiting } = await client.query(
    `update ${bossSchema}.job set name = $2, dead_letter = $3 where name = $1 and state < 'completed'`,
    [queueName(from), queueName(to), deadLetterQueueName(to)],
  )
  const { rowCount: dead } = await client.query(
    `update ${bossSchema}.job set name = $2, source_name = $3 where name = $1 and state < 'completed'`,
    [deadLetterQueueName(from), deadLetterQueueName(to), queueName(to)],
  )
  return (waiting ?? 0) + (dead ?? 0)
}
