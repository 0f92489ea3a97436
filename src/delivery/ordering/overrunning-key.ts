import type pg from 'pg'
import { keepFailures } from '../attempts/failure.ts'
import type { EventOutcome } from '../attempts/outcome.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import { isCurrentSql } from '../jobs/key-jobs.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'

/**
 * Marks a key that waits for a handler that ignores its signal, so that every process can see it. Whatever gives the key another
 * job, or ends this one, removes the mark. Locks the key's own row and nothing else. Repeating it changes nothing.
 */
export async function markOverrunningKey(
  { database, queue }: SubscriptionContext,
  { id, retryCount, data, failures }: JobClaim,
  { eventId, failure }: EventOutcome & { readonly delivered: false },
): Promise<void> {
  await database.query(
    `update bus.ordered_keys k
     set state = 'overrunning', failed_event_id = $5, attempts = $6, failures = $7::jsonb, failed_at = now()
     where k.id = $1 and k.job_id = $2 and k.state = 'active'
       and ${isCurrentSql(database, { queue: '$3', id: '$2', retryCount: '$4' })}`,
    [
      data.keyId,
      id,
      queue,
      retryCount,
      eventId,
      failure.attempt,
      JSON.stringify(keepFailures([...failures, failure])),
    ],
  )
}

/** Removes the marks of keys that the transaction has locked, for jobs that it ends. */
export async function unmarkOverrunningKeys(
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
