import type { FailureOutput, JobClaim } from '../jobs/job-claim.ts'
import { lossAllowance, type PastAttempts } from '../jobs/job.ts'
import type { Subscription } from '../subscriptions/subscription.ts'

/** What the loss of a worker means for an event that it had in flight. */
export interface Loss {
  readonly past: PastAttempts
  /** For the job that carries it on. */
  readonly retryLimit: number
  /** Set when the event ran as the only suspect and has no attempt left: it becomes a dead letter. */
  readonly output: FailureOutput | undefined
}

/**
 * After two losses beside other events an event is a suspect, and runs alone: see ../in-flight/quarantine.ts.
 *
 * @param claim - the one that was given after the loss
 */
export function afterWorkerLoss(
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
    // A batch that was split down to one event still has a batch's limit: then it is computed anew.
    const remaining =
      data.attempts === undefined
        ? lossAllowance + maxAttempts - 1
        : Math.max(lossAllowance, retryLimit - (retryCount - 1))
    return { past: { attempts, losses: losses + 1, failures }, retryLimit: remaining, output: undefined }
  }
  const remaining = retryLimit - retryCount
  // All attempts count now, those lost beside other events included: the event has ended its process (docs/adr/0015).
  const isGivenUp = remaining < lossAllowance || attempts >= maxAttempts
  return {
    past: { attempts, losses, failures },
    retryLimit: remaining,
    output: isGivenUp ? { attempts, final: false, failures } : undefined,
  }
}
