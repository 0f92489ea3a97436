import type { FailureOutput, JobClaim } from '../jobs/job-claim.ts'
import { lossAllowance, type JobData, type PastAttempts } from '../jobs/job.ts'
import type { Subscription } from '../subscriptions/subscription.ts'

/**
 * An event may be in flight this often when its process dies. From then on it is a suspect, and runs while no other suspect of the
 * process does. One loss would do, but then all that a killed process had in flight would run one by one.
 */
const lossesOfSuspect = 2

/** Whether an event was in flight so often when its process died that it may be the cause. */
export function isSuspect({ losses = 0 }: JobData): boolean {
  return losses >= lossesOfSuspect
}

/** What the loss of a worker means for an event that it had in flight. */
export interface Loss {
  readonly past: PastAttempts
  /** For the job that carries it on. */
  readonly retryLimit: number
  /** Set when the event ran as the only suspect and has no attempt left: it becomes a dead letter. */
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
  // Beside other events, the attempt is not counted against this one.
  if (data.isolatedAt !== retryCount - 1) {
    // What a split left of a batch may be one event, with a batch's limit.
    const remaining =
      data.attempts === undefined
        ? lossAllowance + maxAttempts - 1
        : Math.max(lossAllowance, retryLimit - (retryCount - 1))
    return { past: { attempts, losses: losses + 1, failures }, retryLimit: remaining, output: undefined }
  }
  const remaining = retryLimit - retryCount
  const isGivenUp = remaining < lossAllowance || attempts >= maxAttempts
  return {
    past: { attempts, losses, failures },
    retryLimit: remaining,
    output: isGivenUp ? { attempts, final: false, failures } : undefined,
  }
}
