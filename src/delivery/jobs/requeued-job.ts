import type { JobInsert } from 'pg-boss'
import { randomUUID } from 'node:crypto'
import {
  newJob,
  isBatch,
  isInBackground,
  isRetry,
  retryPriority,
  retryFields,
  type JobData,
  maxFinishTag,
} from './job.ts'
import { declinedGroup } from './declined-jobs.ts'
import { jobIdLike } from './job-id.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import type { JobClaim, Declined } from './job-claim.ts'

/** How a job is requeued. */
export interface RequeueOptions {
  /** How long it waits at least. */
  readonly delaySeconds?: number | undefined
  /** How often its events were not found in the log. */
  readonly missCount?: number | undefined
  /** The flow that it is requeued in, where that is not the one it came from. */
  readonly flowKey?: string | undefined
  /** Some of its events have run: what is left stands behind the jobs that have had no turn. */
  readonly hasHadTurn?: boolean | undefined
  /** It is requeued because only other code covers its events. */
  readonly declined?: Declined | undefined
}

/** The job that carries the given events of a claimed one on, with no attempt counted. A single event keeps its id and its history. */
export function requeuedJob(
  subscription: Subscription,
  claim: JobClaim,
  eventIds: readonly string[],
  {
    delaySeconds = 0,
    missCount = claim.data.missCount ?? 0,
    flowKey = claim.flowKey,
    hasHadTurn = false,
    declined,
  }: RequeueOptions = {},
): JobInsert<JobData> {
  const data: JobData = {
    eventIds,
    ...(missCount > 0 ? { missCount } : {}),
    ...(declined === undefined ? {} : { declinedBy: declined.by }),
    ...(claim.data.replay === undefined ? {} : { replay: claim.data.replay }),
  }
  // A job that was handed to a worker directly has no position among first attempts: it goes before all that have one.
  const position = isRetry(claim) ? retryPriority : Math.min(0, claim.priority)
  const priority = position - (hasHadTurn ? eventIds.length : 0)
  const job = {
    ...newJob(eventIds, subscription),
    data,
    startAfter: delaySeconds,
    priority: declined?.isLast === true ? -maxFinishTag : priority,
    // A declined job, and one in the background, has no position: no other job is to wait behind it.
    ...(declined === undefined ? {} : { group: { id: declinedGroup(declined.by) } }),
    ...(flowKey === undefined || declined !== undefined || isInBackground(claim)
      ? {}
      : { singletonKey: flowKey }),
  }
  if (isBatch(claim.data)) {
    const isReplay = claim.data.replay !== undefined
    return { ...job, id: isReplay ? randomUUID() : jobIdLike(claim.id, eventIds) }
  }
  const attempts = (claim.data.attempts ?? 0) + claim.retryCount
  const { isolatedAt: _, ...past } = claim.data
  return {
    ...job,
    ...retryFields(subscription.retry, attempts - (claim.data.losses ?? 0)),
    retryLimit: claim.retryLimit - claim.retryCount,
    id: claim.id,
    data: { ...past, ...data, attempts, failures: claim.failures },
  }
}
