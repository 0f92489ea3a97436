import { inTransaction } from './boss.ts'
import type { JobClaim } from './job-claim.ts'
import { requeuedJob } from './requeued-job.ts'
import type { SubscriptionContext } from './subscription-context.ts'

/**
 * Moves events that a worker has not started out of their job, into a job of their own, in one transaction. Returns false, and writes
 * nothing, when the claim was lost. The lock on the job's row lets either this or another worker's claim through.
 */
export async function splitJob(
  { database, boss, subscription, queue }: SubscriptionContext,
  claim: JobClaim,
  unstartedIds: readonly string[],
): Promise<boolean> {
  const kept = claim.data.eventIds.filter((id) => !unstartedIds.includes(id))
  return database.transaction(async (client) => {
    const { rowCount } = await client.query(
      `update ${database.bossSchema}.job set data = jsonb_set(data, '{eventIds}', $4::jsonb)
       where name = $1 and id = $2 and state = 'active' and retry_count = $3`,
      [queue, claim.id, claim.retryCount, JSON.stringify(kept)],
    )
    if (rowCount !== 1) return false
    const job = requeuedJob(subscription, claim, unstartedIds, { hasHadTurn: true })
    await boss.insert(queue, [job], inTransaction(client))
    return true
  })
}
