import type pg from 'pg'
import type { Database } from '../../../database/database.ts'
import { lowestId, timeInId } from '../../../events/event-id.ts'
import { backgroundPriority } from '../job.ts'
import { maxSpanMs } from '../job-id.ts'

/**
 * The events of a queue that wait in the background for their first attempt, for a replay or a catch-up. Counts no more than so many jobs, and
 * none of those that stand there because they were left to other code.
 */
export async function countBackgroundEvents(
  client: pg.ClientBase,
  { bossSchema }: Pick<Database, 'bossSchema'>,
  queue: string,
  maxJobs: number,
): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    `select coalesce(sum(jsonb_array_length(j.data->'eventIds')), 0)::int as count
     from (
       select data from ${bossSchema}.job
       where name = $1 and state < 'active' and not blocked and priority <= ${backgroundPriority}
         and bus.is_background_job(priority, group_id, data)
       limit $2
     ) j`,
    [queue, maxJobs],
  )
  return rows[0]?.count ?? 0
}

/** An event that may wait, with the times by which its job is found. */
export interface SoughtEvent {
  readonly id: string
  /** When it was due, if it was scheduled, in milliseconds since 1970. */
  readonly dueMs: number | undefined
}

/**
 * Which of some events are in a job of the queue that has not ended. Reads the jobs of the time that they were published in, or due, by the
 * primary key: the id of a job of first attempts says that.
 */
export async function findWaitingEvents(
  client: pg.ClientBase,
  { bossSchema }: Pick<Database, 'bossSchema'>,
  queue: string,
  events: readonly SoughtEvent[],
): Promise<ReadonlySet<string>> {
  const waiting = new Set<string>()
  const published = events.map(({ id }) => timeInId(id))
  const due = events.flatMap(({ dueMs }) => (dueMs === undefined ? [] : [dueMs]))
  for (const times of [published, due]) {
    if (times.length === 0) continue
    const { rows } = await client.query<{ event_id: string }>(
      `select x.event_id from ${bossSchema}.job b cross join lateral jsonb_array_elements_text(b.data->'eventIds') as x (event_id)
       where b.name = $1 and b.state < 'completed' and b.id >= $2::uuid and b.id < $3::uuid and not b.data ? 'replay'
         and x.event_id = any ($4::text[])`,
      [
        queue,
        lowestId(Math.max(0, Math.min(...times) - maxSpanMs)),
        lowestId(Math.max(...times) + 1),
        events.map(({ id }) => id),
      ],
    )
    for (const { event_id } of rows) waiting.add(event_id)
  }
  return waiting
}
