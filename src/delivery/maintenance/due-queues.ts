import type { Database } from '../../database/database.ts'

/** How often a process looks. */
export const lookIntervalMs = 4000

/** How far ahead retries are looked for: beyond the next look. */
const aheadMs = 2 * lookIntervalMs

/** A retry may be committed so much later than it was due: the next look begins so long before the end of the last one. */
const overlapMs = 5000

/** An instance that is silent for this long may be lost; one that is silent for longer was looked after before. */
const silentSeconds = 30
const forgottenSeconds = 120

/** A subscription whose queue is worth a poll, and when. */
export interface DueQueue {
  readonly subscriptionId: number
  readonly dueMs: number
}

/**
 * Finds the queues with retries that are due, and those of processes that have fallen silent, without a look at any queue: by the index of
 * `bus.failing`, and by the heartbeats of the instances.
 *
 * @param lookedMs - how long ago the last look was
 */
export async function findDueQueues(
  database: Pick<Database, 'query'>,
  subscriptionIds: readonly number[],
  lookedMs: number,
): Promise<readonly DueQueue[]> {
  const { rows } = await database.query<{ id: number; due_ms: number }>(
    `select d.id, min(d.due_ms)::float8 as due_ms from (
       select f.subscription_id as id, extract(epoch from f.next_attempt_at - clock_timestamp()) * 1000 as due_ms
       from bus.failing f
       where f.state = 'retrying' and f.next_attempt_at > now() - $2::float8 * interval '1 millisecond'
         and f.next_attempt_at <= now() + interval '${aheadMs} milliseconds'
       union all
       select d.subscription_id, 0
       from bus.instances i join bus.declarations d on d.id = any(i.declarations)
       where i.seen_at between now() - interval '${forgottenSeconds} s' and now() - interval '${silentSeconds} s'
     ) d
     where d.id = any($1::int[])
     group by d.id`,
    [subscriptionIds, lookedMs + overlapMs],
  )
  return rows.map(({ id, due_ms }) => ({ subscriptionId: id, dueMs: Math.max(0, due_ms) }))
}
