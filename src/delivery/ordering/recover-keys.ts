import type { JobWithMetadata, PgBoss } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import type { Database } from '../../database/database.ts'
import { inTransaction } from '../jobs/boss.ts'
import { lostWorkerError, toClaim } from '../jobs/claimed-job.ts'
import { logBuried, describeFailure, keepFailures } from '../attempts/failure.ts'
import type { JobData } from '../jobs/job.ts'
import { advanceKeys, holdKeys } from './ordered-keys.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import type { FailureOutput } from '../jobs/job-claim.ts'
import { queueName } from '../jobs/queues.ts'

/** Keys that are looked after at a time. */
const maxKeys = 1000

interface OrphanedKey {
  readonly id: string
  readonly job_id: string
}

/**
 * Finds keys whose job is over although its worker never said so. pg-boss gave it up after its last attempt, because the
 * worker was not heard of: then the key's rule decides. Or somebody completed, cancelled or deleted it by hand: only a
 * receipt, a failed last attempt or a release let a key go on, so its events get a job again.
 *
 * Gives whether jobs are ready now. Any number of processes may do it at once: a key is held, and looked at again.
 */
export async function recoverKeys(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  logger: BusLogger,
): Promise<boolean> {
  const queue = queueName(subscription.name)
  const { rows } = await database.query<OrphanedKey & Record<string, unknown>>(
    `select k.id, k.job_id from bus.ordered_keys k
     where k.subscription_id = $1 and k.state in ('active', 'overrunning')
       and not exists (
         select from ${database.bossSchema}.job j where j.name = $2 and j.id = k.job_id and j.state < 'completed')
     order by k.id limit ${maxKeys}`,
    [subscriptionId, queue],
  )
  let ready = false
  for (const key of rows) ready = (await recoverKey(database, boss, subscription, key, logger)) || ready
  return ready
}

async function recoverKey(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  key: OrphanedKey,
  logger: BusLogger,
): Promise<boolean> {
  const queue = queueName(subscription.name)
  const buried: { readonly eventId: string; readonly output: FailureOutput }[] = []
  const ready = await database.transaction(async (client) => {
    const options = inTransaction(client)
    const { rows: held } = await client.query(
      // Whoever holds it is at it, or keeps it from everybody: the others are looked after meanwhile.
      `select from bus.ordered_keys where id = $1 and job_id = $2 and state in ('active', 'overrunning') for update skip locked`,
      [key.id, key.job_id],
    )
    if (held.length === 0) return false
    await database.reach?.('recover-key.locked')
    const [job] = await boss.findJobs<JobData>(queue, { id: key.job_id, ...options })
    if (job !== undefined && ['created', 'retry', 'active'].includes(job.state)) return false
    const progress = { keyId: key.id, jobId: key.job_id, eventId: job?.data.eventIds[0] ?? key.job_id }
    let doneCount = 0
    if (job?.state === 'failed' && job.data.eventIds.length === 1) {
      const output = lastOutput(job)
      buried.push({ eventId: progress.eventId, output })
      const rule = subscription.onKeyFailure ?? 'block'
      if (rule !== 'skip') {
        const state = rule === 'block' ? 'blocked' : 'parked'
        const { attempts, failures } = output
        const failed = { failedEventId: progress.eventId, attempts, failures }
        await holdKeys(client, [{ ...progress, doneCount: 0, state, ...failed }])
        return false
      }
      doneCount = 1
    }
    const jobs = await advanceKeys(client, subscription, [{ ...progress, doneCount }])
    if (jobs.length > 0) await boss.insert(queue, jobs, options)
    return jobs.length > 0
  })
  await database.reach?.('recover-key.committed')
  for (const { eventId, output } of buried) logBuried(logger, subscription.name, eventId, output)
  return ready
}

/** What is known of a job whose last attempt pg-boss ended. */
function lastOutput(job: JobWithMetadata<JobData>): FailureOutput {
  const attempts = (job.data.attempts ?? 0) + job.retryCount + 1
  const known = (job.output as Partial<FailureOutput> | null)?.failures
  const before = toClaim({ ...job, output: {}, retryCount: 0 }).failures
  return {
    attempts,
    final: false,
    failures: known ?? keepFailures([...before, describeFailure(attempts, lostWorkerError(job.output))]),
  }
}
