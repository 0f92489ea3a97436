import type { PgBoss } from 'pg-boss'
import type { Database } from '../outbox/database.ts'
import { inTransaction } from './boss.ts'
import type { AttemptFailure } from './failure.ts'
import { laterAttemptJob } from './job.ts'
import { fence, readReceipts, type JobClaim } from './settlement.ts'
import { queueName, type Subscription } from './subscription.ts'

/** Takes a batch apart whose worker died: the events without a receipt go on one by one. */
export async function explodeBatch(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  claim: JobClaim,
  failure: AttemptFailure,
): Promise<void> {
  const queue = queueName(subscription.name)
  await database.transaction(async (client) => {
    const options = inTransaction(client)
    const delivered = await readReceipts(client, subscriptionId, claim.data.eventIds)
    const left = claim.data.eventIds.filter((id) => !delivered.has(id))
    const jobs = left.map((id) => laterAttemptJob(claim.id, id, [failure], subscription, 0))
    if (jobs.length > 0) await boss.insert(queue, jobs, options)
    await database.reach?.('explode.jobs-inserted')
    await boss.complete(queue, [fence(claim)], null, options)
    await database.reach?.('explode.completed')
  })
  await database.reach?.('explode.committed')
}
