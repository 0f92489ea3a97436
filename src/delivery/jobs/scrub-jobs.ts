import type { Database } from '../../database/database.ts'
import { deadLetterQueueName, queueName } from './queues.ts'

/** Whose events were erased. */
interface ErasedSubject {
  readonly tenantId: string
  readonly subject: string
}

/**
 * Empties the records of failed attempts in the jobs and dead letters of a subscription, where they are about erased events of
 * a subject: an error may quote its event. Resolves to the number of jobs that it changed. Locks the rows that it changes, in one
 * statement. Repeating it changes nothing: what is emptied already is left as it is.
 */
export async function scrubJobs(
  { query, bossSchema }: Pick<Database, 'query' | 'bossSchema'>,
  subscription: string,
  { tenantId, subject }: ErasedSubject,
): Promise<number> {
  const { rows } = await query<{ count: string }>(
    `with jobs as (
       update ${bossSchema}.job j
       set data = bus.scrub_failures(j.data), output = bus.scrub_failures(j.output), source_output = bus.scrub_failures(j.source_output)
       where j.name in ($3, $4)
         and j.data->'eventIds'->>1 is null
         and (j.data ? 'failures' or j.output ? 'failures' or j.source_output ? 'failures')
         and (bus.scrub_failures(j.data), bus.scrub_failures(coalesce(j.output, '{}')), bus.scrub_failures(coalesce(j.source_output, '{}')))
           is distinct from (j.data, coalesce(j.output, '{}'), coalesce(j.source_output, '{}'))
         and exists (
           select from bus.events e
           where e.id = (j.data->'eventIds'->>0)::uuid and e.tenant_id = $1 and e.subject = $2 and e.erased_at is not null)
       returning 1
     )
     select count(*) as count from jobs`,
    [tenantId, subject, queueName(subscription), deadLetterQueueName(subscription)],
  )
  return Number(rows[0]?.count ?? 0)
}
