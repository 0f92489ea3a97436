import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import type { ActiveJob } from '../in-flight/active-job.ts'
import { keepFailures } from '../attempts/failure.ts'
import type { Settler } from '../settlement/settlement-queue.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import type { EventOutcome } from '../attempts/outcome.ts'
import { queueName } from '../jobs/queues.ts'

/** The key of a job waits for a handler that ignores its signal: other processes shall see it, while it does. */
export function showOverrun(
  job: ActiveJob,
  executor: Pick<Database, 'query' | 'bossSchema'>,
  subscription: Subscription,
  settler: Settler,
): void {
  const { overrun, claim } = job
  if (job.done || overrun === undefined || overrun.delivered) return
  const note = async (): Promise<void> => noteOverrunningKey(executor, subscription, claim, overrun)
  // It may be given up at a stop, when the key is given back.
  job.marking = settler.untilWritten(note).catch(() => {})
}

/**
 * Notes on a key that it waits for a handler that ignores its signal, so that every process can see it. Whatever gives the key
 * another job, or ends this one, takes the note back. Row lock: the key's own, and nothing else. Repeating it changes nothing.
 */
async function noteOverrunningKey(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  subscription: Subscription,
  { id, retryCount, data, failures }: JobClaim,
  { eventId, failure }: EventOutcome & { readonly delivered: false },
): Promise<void> {
  await executor.query(
    `update bus.ordered_keys k
     set state = 'overrunning', failed_event_id = $5, attempts = $6, failures = $7::jsonb, failed_at = now()
     where k.id = $1 and k.job_id = $2 and k.state = 'active'
       and exists (
         select from ${executor.bossSchema}.job j where j.name = $3 and j.id = $2 and j.state = 'active' and j.retry_count = $4)`,
    [
      data.keyId,
      id,
      queueName(subscription.name),
      retryCount,
      eventId,
      failure.attempt,
      JSON.stringify(keepFailures([...failures, failure])),
    ],
  )
}

/** Takes the notes back of keys that the transaction has locked, for jobs that it ends. */
export async function forgetOverrunningKeys(
  client: pg.ClientBase,
  claims: readonly JobClaim[],
): Promise<void> {
  if (claims.length === 0) return
  await client.query(
    `update bus.ordered_keys k
     set state = 'active', failed_event_id = null, attempts = null, failures = null, failed_at = null
     from unnest($1::bigint[], $2::uuid[]) as c (key_id, job_id)
     where k.id = c.key_id and k.job_id = c.job_id and k.state = 'overrunning'`,
    [claims.map(({ data }) => data.keyId), claims.map(({ id }) => id)],
  )
}
