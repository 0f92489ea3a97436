import type { JobInsert } from 'pg-boss'
import { leftGroup } from './coverage.ts'
import { lastPlace } from './fair-batches.ts'
import { firstAttemptJob, isBatch, isTriedBefore, laterPriority, retryFields, type JobData } from './job.ts'
import type { JobClaim, Settlement } from './settlement.ts'
import type { Subscription } from './subscription.ts'

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
  }: Pick<Settlement, 'delaySeconds' | 'misses' | 'lineKey' | 'left'> & {
    readonly hasHadTurn?: boolean
  } = {},
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
    priority: left?.isLast === true ? -lastPlace : place,
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
