import type { JobInsert } from 'pg-boss'
import {
  firstAttemptJob,
  isBatch,
  isTriedBefore,
  laterPriority,
  retryFields,
  type JobData,
  leftGroup,
  maxFinishTag,
} from './job.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import type { JobClaim, LeftToOthers } from './job-claim.ts'

/** How a job goes back to its queue. */
export interface RequeueOptions {
  /** How long it waits at least. */
  readonly delaySeconds?: number | undefined
  /** How often its events were looked for in the log in vain. */
  readonly misses?: number | undefined
  /** The fairness key it goes back under, where that is not the one it came from. */
  readonly lineKey?: string | undefined
  /** Some of its events have run: what is left stands behind the jobs that have had no turn. */
  readonly hasHadTurn?: boolean | undefined
  /** It goes back because only other code covers its events. */
  readonly left?: LeftToOthers | undefined
}

/** What is left of a job, with no attempt counted. A single event keeps its id and its history. */
export function handedBackJob(
  subscription: Subscription,
  claim: JobClaim,
  eventIds: readonly string[],
  {
    delaySeconds = 0,
    misses = claim.data.misses ?? 0,
    lineKey = claim.lineKey,
    hasHadTurn = false,
    left,
  }: RequeueOptions = {},
): JobInsert<JobData> {
  const data: JobData = {
    eventIds,
    ...(misses > 0 ? { misses } : {}),
    ...(left === undefined ? {} : { leftBy: left.by }),
  }
  // What went straight to a worker has no place in the line: it goes before all that has one.
  const before = isTriedBefore(claim) ? laterPriority : Math.min(0, claim.priority)
  const place = before - (hasHadTurn ? eventIds.length : 0)
  const job = {
    ...firstAttemptJob(eventIds, subscription),
    data,
    startAfter: delaySeconds,
    priority: left?.isLast === true ? -maxFinishTag : place,
    // What is left to others has no place in the line: nobody is to wait behind it.
    ...(left === undefined ? {} : { group: { id: leftGroup(left.by) } }),
    ...(lineKey === undefined || left !== undefined ? {} : { singletonKey: lineKey }),
  }
  if (isBatch(claim.data)) return job
  const attempts = (claim.data.attempts ?? 0) + claim.retryCount
  const { aloneAt: _, ...past } = claim.data
  return {
    ...job,
    ...retryFields(subscription.retry, attempts - (claim.data.losses ?? 0)),
    retryLimit: claim.retryLimit - claim.retryCount,
    id: claim.id,
    data: { ...past, ...data, attempts, failures: claim.failures },
  }
}
