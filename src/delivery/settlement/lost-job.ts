import type { PgBoss } from 'pg-boss'
import type { Database } from '../../database/database.ts'
import { inTransaction } from '../jobs/boss.ts'
import { laterAttemptJob, lossAllowance, type JobData, type PastAttempts } from '../jobs/job.ts'
import { readReceipts } from './receipts.ts'
import { insertBatchFailures } from './settlement.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import { fence, type FailureOutput, type JobClaim } from '../jobs/job-claim.ts'
import { queueName } from '../jobs/queues.ts'

/**
 * So often an event may share its process with whatever ends it. From then on it is a suspect, and runs while no other
 * suspect of the process does. Once would do, but then all that a killed process had in hand would run one by one.
 */
const lossesOfSuspect = 2

/** Whether an event was in hand so often when its process died that it must be found out whether it is why. */
export function isSuspect({ losses = 0 }: JobData): boolean {
  return losses >= lossesOfSuspect
}

/** What the loss of a worker means for an event that it had in hand. */
export interface Loss {
  readonly past: PastAttempts
  /** For the job that carries it on. */
  readonly retryLimit: number
  /** Set when it ran as the only suspect, and has no attempt left. */
  readonly output: FailureOutput | undefined
}

/** @param claim - the one that was given after the loss */
export function afterLoss(
  { data, retryCount, retryLimit, failures }: JobClaim,
  subscription: Subscription,
): Loss {
  const { maxAttempts } = subscription.retry
  if (data.eventIds.length > 1) {
    const past = { attempts: 1, losses: 1, failures: failures.slice(-1) }
    return { past, retryLimit: lossAllowance + maxAttempts - 1, output: undefined }
  }
  const attempts = (data.attempts ?? 0) + retryCount
  const { losses = 0 } = data
  // In company, the attempt is not counted against its event.
  if (data.aloneAt !== retryCount - 1) {
    // What a split left of a batch may be one event, with a batch's limit.
    const left =
      data.attempts === undefined
        ? lossAllowance + maxAttempts - 1
        : Math.max(lossAllowance, retryLimit - (retryCount - 1))
    return { past: { attempts, losses: losses + 1, failures }, retryLimit: left, output: undefined }
  }
  const left = retryLimit - retryCount
  const isGivenUp = left < lossAllowance || attempts >= maxAttempts
  return {
    past: { attempts, losses, failures },
    retryLimit: left,
    output: isGivenUp ? { attempts, final: false, failures } : undefined,
  }
}

/**
 * Takes a job apart whose worker died: the events without a receipt go on one by one, each in a job with a new id, so
 * that the dead worker, should it live on, cannot settle them. Gives those that went to the dead letters instead.
 */
export async function takeApart(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  claim: JobClaim,
): Promise<readonly { readonly eventId: string; readonly output: FailureOutput }[]> {
  const queue = queueName(subscription.name)
  const { past, retryLimit, output } = afterLoss(claim, subscription)
  const buriedEvents = await database.transaction(async (client) => {
    const delivered = await readReceipts(client, subscriptionId, claim.data.eventIds)
    const left = claim.data.eventIds.filter((id) => !delivered.has(id))
    const jobs = left.map((id) => ({
      ...laterAttemptJob(claim.id, id, past, subscription, 0),
      retryLimit,
    }))
    const { affected } = (await boss.complete(queue, [fence(claim)], null, inTransaction(client))) as {
      affected?: number
    }
    // Another worker was faster.
    if (affected !== 1) return []
    await database.faultPoint?.('recover-job.completed')
    const buried =
      output === undefined
        ? []
        : jobs.map((job) => ({ job: { ...job, retryLimit: 0 }, output: { ...output } }))
    await insertBatchFailures(client, boss, queue, { buried, laterJobs: output === undefined ? jobs : [] })
    await database.faultPoint?.('recover-job.jobs-inserted')
    return output === undefined ? [] : left.map((eventId) => ({ eventId, output }))
  })
  await database.faultPoint?.('recover-job.committed')
  return buriedEvents
}
