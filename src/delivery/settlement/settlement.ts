import type { JobInsert } from 'pg-boss'
import { keepFailures } from '../attempts/failure.ts'
import type { EventOutcome } from '../attempts/outcome.ts'
import { isLastAttempt, type Declined, type FailureOutput, type JobClaim } from '../jobs/job-claim.ts'
import type { FailedClaim } from '../jobs/job-writer.ts'
import { isBatch, retryJob, type JobData } from '../jobs/job.ts'
import { requeuedJob } from '../jobs/requeued-job.ts'
import { firstRetryDelaySeconds } from '../subscriptions/retry-delays.ts'
import type { ResolvedRetry, Subscription } from '../subscriptions/subscription.ts'
import type { Receipt } from './receipts.ts'

/** What is to be written about a job. */
export interface Settlement {
  readonly claim: JobClaim
  readonly outcomes: readonly EventOutcome[]
  /** Whether nothing of the job is left to run: it is then completed, or failed if it holds a single event. */
  readonly done: boolean
  /** Events of the job that were not started, or were interrupted by a shutdown: they go back to the queue, with no attempt counted. */
  readonly requeued?: readonly string[] | undefined
  /** How long those wait at least. */
  readonly delaySeconds?: number | undefined
  /** How often they were looked for in the log in vain. */
  readonly missCount?: number | undefined
  /** The fairness key they go back under, where that is not the job's own. */
  readonly fairnessKey?: string | undefined
  /** The row of the job's key says that a handler still runs after its attempt. */
  readonly isMarked?: boolean | undefined
  /** They go back because only other code covers them. */
  readonly declined?: Declined | undefined
}

export type FailedOutcome = EventOutcome & { readonly delivered: false }

/**
 * Whether a failed attempt was the last one of its event, which then becomes a dead letter. In a job of several events the attempt
 * was the first at each of them.
 */
export function isGivenUp(
  claim: JobClaim,
  retry: ResolvedRetry,
  { final }: Pick<FailedOutcome, 'final'>,
): boolean {
  return final || (claim.data.eventIds.length > 1 ? retry.maxAttempts === 1 : isLastAttempt(claim))
}

/** What pg-boss keeps of a failed attempt and those before it. */
export function failureOutput(
  { data, failures }: JobClaim,
  { failure, final }: Pick<FailedOutcome, 'failure' | 'final'>,
): FailureOutput {
  const all = data.eventIds.length > 1 ? [failure] : keepFailures([...failures, failure])
  return { attempts: failure.attempt, final, failures: all }
}

/** A job that is inserted as a dead letter. */
interface NewDeadLetter {
  readonly job: JobInsert<JobData> & { readonly id: string }
  readonly output: FailureOutput
}

/** The writes that some settlements need. */
export interface Writes {
  readonly receipts: Receipt[]
  /** Jobs for the events of a batch that failed and are tried again. */
  readonly retries: JobInsert<JobData>[]
  readonly completed: JobClaim[]
  /** Jobs of single events that pg-boss runs again. */
  readonly failed: FailedClaim[]
  /** Jobs of single events that become dead letters. */
  readonly deadLetters: { readonly claim: JobClaim; readonly output: FailureOutput }[]
  /** Events of a batch that become dead letters. */
  readonly batchDeadLetters: NewDeadLetter[]
  readonly requeued: { readonly claim: JobClaim; readonly job: JobInsert<JobData> }[]
}

/** Plans the writes for jobs that are not a key's. */
export function planWrites(subscription: Subscription, settlements: readonly Settlement[]): Writes {
  const plan: Writes = {
    receipts: receiptsOf(settlements),
    retries: [],
    completed: [],
    failed: [],
    deadLetters: [],
    batchDeadLetters: [],
    requeued: [],
  }
  for (const { claim, outcomes, done, requeued = [], ...how } of settlements) {
    const failures = outcomes.filter(isFailure)
    const inBatch = isBatch(claim.data)
    for (const outcome of failures) {
      if (inBatch) planBatchFailure(plan, subscription, claim, outcome)
      else planFailure(plan, subscription.retry, claim, outcome)
    }
    if (requeued.length > 0)
      plan.requeued.push({ claim, job: requeuedJob(subscription, claim, requeued, how) })
    else if (done && (inBatch || failures.length === 0)) plan.completed.push(claim)
  }
  return plan
}

export function receiptsOf(settlements: readonly Settlement[]): Receipt[] {
  return settlements.flatMap(({ outcomes }) =>
    outcomes.flatMap((outcome) => {
      if (!outcome.delivered) return []
      const { eventId, attempt: attempts, durationMs, erased = false, expired = erased } = outcome
      return [{ eventId, attempts, durationMs, expired, erased }]
    }),
  )
}

export function isFailure(outcome: EventOutcome): outcome is FailedOutcome {
  return !outcome.delivered
}

function planFailure(plan: Writes, retry: ResolvedRetry, claim: JobClaim, outcome: FailedOutcome): void {
  const output = failureOutput(claim, outcome)
  if (isGivenUp(claim, retry, outcome)) plan.deadLetters.push({ claim, output })
  else plan.failed.push({ claim, output, retryAfterSeconds: outcome.retryAfterSeconds })
}

function planBatchFailure(
  plan: Writes,
  subscription: Subscription,
  claim: JobClaim,
  outcome: FailedOutcome,
): void {
  const { retry } = subscription
  const { eventId, failure, retryAfterSeconds = firstRetryDelaySeconds(retry) } = outcome
  const past = { attempts: 1, failures: [failure] }
  const job = retryJob(claim.id, eventId, past, subscription, retryAfterSeconds)
  if (isGivenUp(claim, retry, outcome))
    plan.batchDeadLetters.push({ job, output: failureOutput(claim, outcome) })
  else plan.retries.push(job)
}
