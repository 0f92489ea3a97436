import type { PgBoss } from 'pg-boss'
import type { Database } from '../../database/database.ts'
import type { ActiveJob } from './active-job.ts'
import { inTransaction } from '../jobs/boss.ts'
import { handedBackJob } from '../jobs/requeued-job.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import { queueName } from '../jobs/queues.ts'

/**
 * Takes the events that a batch has not begun out of a worker's hands, and gives them. Until they are in a job of their own, the
 * job is not to be settled: `splitting` resolves then.
 */
export function beginSplit(
  job: ActiveJob,
  write: () => Promise<boolean>,
  onLost: () => void,
): readonly string[] {
  const before = job.splitting
  const rest = [...job.left].filter((id) => !job.running.has(id))
  job.rest = [...job.rest, ...rest]
  job.splitting = (async () => {
    await before
    if (job.rest.length === 0) return
    const isOurs = await write()
    job.rest = []
    if (!isOurs) onLost()
  })()
  // Whoever settles the job hears of a failure: then the events are handed back with what is left of it.
  job.splitting.catch(() => {})
  return rest
}

/**
 * Leaves the events that a worker has begun in their job, and puts the others back in one of their own, in one transaction. False,
 * and nothing is written, when the claim was lost. The lock on the job's row lets either this or another worker's claim through.
 */
export async function splitJob(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  { claim, rest }: ActiveJob,
): Promise<boolean> {
  const queue = queueName(subscription.name)
  const kept = claim.data.eventIds.filter((id) => !rest.includes(id))
  return database.transaction(async (client) => {
    const { rowCount } = await client.query(
      `update ${database.bossSchema}.job set data = jsonb_set(data, '{eventIds}', $4::jsonb)
       where name = $1 and id = $2 and state = 'active' and retry_count = $3`,
      [queue, claim.id, claim.retryCount, JSON.stringify(kept)],
    )
    if (rowCount !== 1) return false
    const job = handedBackJob(subscription, claim, rest, { hasHadTurn: true })
    await boss.insert(queue, [job], inTransaction(client))
    return true
  })
}
