import type { Database } from '../../database/database.ts'
import { canary } from '../../events/event-type.ts'
import { queueName } from './queues.ts'

const queue = queueName(canary.subscription)

/** The condition for the job of a canary; few jobs are in its queue. */
const isItsJob = `j.name = '${queue}' and j.data -> 'eventIds' ? $1::text`

/** Records that the handler of a canary has run, and when its job was inserted and fetched. */
export async function recordCanaryHandled(
  { query, bossSchema }: Pick<Database, 'query' | 'bossSchema'>,
  eventId: string,
): Promise<void> {
  await query(
    `update bus.canaries c set dispatched_at = j.created_on, fetched_at = j.started_on, handled_at = clock_timestamp()
     from (select j.created_on, j.started_on from ${bossSchema}.job j where ${isItsJob} order by j.started_on desc nulls last limit 1) j
     where c.event_id = $1::text::uuid`,
    [eventId],
  )
}

/** Whether a canary has been dispatched to its queue. */
export async function hasCanaryJob(
  { query, bossSchema }: Pick<Database, 'query' | 'bossSchema'>,
  eventId: string,
): Promise<boolean> {
  const { rows } = await query<{ found: boolean }>(
    `select exists (select from ${bossSchema}.job j where ${isItsJob}) as found`,
    [eventId],
  )
  return rows[0]?.found === true
}
