import type { JobClaim } from './job-claim.ts'
import type { SubscriptionContext } from './subscription-context.ts'

/** Marks a job whose event is about to run as the only suspect. Returns false, and writes nothing, when the claim was lost. */
export async function markIsolated(
  { database, queue }: SubscriptionContext,
  { id, retryCount }: JobClaim,
): Promise<boolean> {
  const { rows } = await database.query(
    `update ${database.bossSchema}.job set data = data || jsonb_build_object('isolatedAt', $3::int)
     where name = $1 and id = $2 and state = 'active' and retry_count = $3 returning 1`,
    [queue, id, retryCount],
  )
  return rows.length === 1
}
