import type pg from 'pg'
import { keepFailures } from '../attempts/failure.ts'
import type { EventOutcome } from '../attempts/outcome.ts'
import { isLastAttempt, type Declined, type FailureOutput, type JobClaim } from '../jobs/job-claim.ts'
import type { ResolvedRetry } from '../subscriptions/retry-options.ts'
import { scheduledDelaySeconds } from '../subscriptions/retry-delays.ts'
import type { FailureRecord } from '../ledger/failures.ts'
import type { Receipt } from '../ledger/receipts.ts'
import type { DeadLettered } from '../jobs/job-writer.ts'

/** What is to be written about a job. */
export interface Settlement {
  readonly claim: JobClaim
  readonly outcomes: readonly EventOutcome[]
  /** Whether nothing of the job is left to run: it is then completed, or failed if it holds a single event. */
  readonly done: boolean
  /** Events of the job that were not started, or were interrupted by a shutdown: they are requeued, with no attempt counted. */
  readonly requeued?: readonly string[] | undefined
  /** How long those wait at least. */
  readonly delaySeconds?: number | undefined
  /** How often they were not found in the log. */
  readonly missCount?: number | undefined
  /** The flow that they are requeued in, where that is not the job's own. */
  readonly flowKey?: string | undefined
  /** The row of the job's key says that a handler still runs after its attempt. */
  readonly isMarked?: boolean | undefined
  /** They are requeued because only other code covers them. */
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

/** When to run a job of one event again, if the handler or a schedule says so. Otherwise pg-boss computes it. */
export function retryAfterSeconds(
  { data }: JobClaim,
  retry: ResolvedRetry,
  { retryAfterSeconds: asked, failure }: Pick<FailedOutcome, 'retryAfterSeconds' | 'failure'>,
): number | undefined {
  return asked ?? scheduledDelaySeconds(retry, failure.attempt - (data.losses ?? 0))
}

/** What pg-boss keeps of a failed attempt and those before it. */
export function failureOutput(
  { data, failures }: JobClaim,
  { failure, final }: Pick<FailedOutcome, 'failure' | 'final'>,
): FailureOutput {
  const all = data.eventIds.length > 1 ? [failure] : keepFailures([...failures, failure])
  return { attempts: failure.attempt, final, failures: all }
}

/** The receipts of a claimed job. */
export interface JobReceipts {
  readonly claim: JobClaim
  readonly receipts: readonly Receipt[]
}

export function receiptsOf(settlements: readonly Settlement[]): JobReceipts[] {
  const all: JobReceipts[] = []
  for (const { claim, outcomes } of settlements) {
    const receipts: Receipt[] = []
    for (const outcome of outcomes) {
      if (!outcome.delivered) continue
      const { eventId, attempt: attempts, durationMs, erased = false, expired = erased } = outcome
      receipts.push({ eventId, attempts, durationMs, expired, erased })
    }
    if (receipts.length > 0) all.push({ claim, receipts })
  }
  return all
}

/** What is recorded of a failed attempt. */
export function failureRecord(
  { eventId, tenantId, type, failure, durationMs }: FailedOutcome,
  state: FailureRecord['state'],
  jobId: string,
): FailureRecord {
  return { eventId, tenantId, type, failure, durationMs, state, jobId }
}

export function isFailure(outcome: EventOutcome): outcome is FailedOutcome {
  return !outcome.delivered
}

/** What is to be done once the outcomes are committed. */
export interface Written {
  /** Jobs that are ready then. */
  readonly readyCount: number
  /** To be logged. */
  readonly deadLetters: readonly DeadLettered[]
}

/**
 * Writes the outcomes of a subscription's jobs. There are two implementations: for keys' jobs, and for all others. Each write is
 * idempotent or fenced by the claim, so it can be repeated after a commit whose answer was lost.
 */
export interface SettlementWriter {
  /** Writes settlements in one transaction. A crash before its commit leaves everything as it was, and the jobs run again. */
  write: (settlements: readonly Settlement[]) => Promise<Written>
  /**
   * Writes a settlement into the open transaction of its handlers, so that both commit together. Cannot be repeated in the same
   * transaction.
   *
   * @throws an {@link AlreadyDelivered}, {@link ClaimLost} or {@link KeyLocked}: the transaction must be rolled back
   */
  writeInto: (client: pg.ClientBase, settlement: Settlement) => Promise<Written>
  /**
   * Ends a job whose worker was lost: its events that have no receipt are delivered one by one, each in a job with a new id, so that the lost
   * worker cannot settle them, should it still run.
   */
  recover: (claim: JobClaim) => Promise<Written>
}

/** Another worker has delivered one of the events meanwhile. */
export class AlreadyDelivered extends Error {}

/** The job belongs to another worker by now. */
export class ClaimLost extends Error {}

/** Another session holds the row of the key for long. */
export class KeyLocked extends Error {}
