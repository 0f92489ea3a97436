import { createHash } from 'node:crypto'
import type { JobInsert } from 'pg-boss'
import type { ClaimedEvent } from '../../outbox/relay/relay.ts'
import type { AttemptFailure } from '../attempts/failure.ts'
import type { DurableOptions, ResolvedRetry } from '../subscriptions/subscription.ts'

/** What a job of the bus carries. Ids only: the events stay in the log. */
export interface JobData {
  /** The events to deliver. More than one: a delivery batch, which is the first attempt only. */
  readonly eventIds: readonly string[]
  /** Attempts made before this job existed, those included whose worker was lost. */
  readonly attempts?: number
  /** How many of them were lost with a worker that held other events too, so that nobody knows whose fault it was. */
  readonly losses?: number
  /** The claim, by its retry count, under which the event ran as the only suspect of its process: see quarantine.ts. */
  readonly isolatedAt?: number
  /** How often these events were looked for in the log in vain: see missing-event.ts. */
  readonly missCount?: number
  /** How those failed, as far as it is known. */
  readonly failures?: readonly AttemptFailure[]
  /** The key whose first events these are, in `bus.ordered_keys`: they are delivered one after the other. */
  readonly keyId?: string
  /** The declarations whose predicate the events were found to fulfil: see coverage.ts. */
  readonly declarations?: readonly number[]
  /** The declarations whose code does not cover its events, and has put it back. */
  readonly declinedBy?: readonly number[]
}

/** The options of a subscription that its jobs are made with. */
type JobOptions = Pick<DurableOptions, 'timeoutSeconds' | 'retry'>

/** About the bytes of payload in one job, so that a worker's memory is bounded. */
export const maxBatchBytes = 1024 * 1024

/** Longest a job may be active at all; a dead worker is found by its heartbeat long before. pg-boss takes a day. */
const maxExpireSeconds = 86_400

/**
 * Retries beyond those of the subscription. pg-boss counts a lost worker as a failed attempt and would bury an event that
 * only shared its process with one that killed it: the bus decides that itself, so for pg-boss there is always one more.
 */
export const lossAllowance = 1_000_000

/**
 * The priority of whatever was tried before, and of nothing else: first attempts have their place in the line there, negated, or 0
 * where there is no line. So the two are told apart where jobs are fetched.
 */
export const retryPriority = 1

/** Batches in publish order, each bounded in events and in bytes. */
export function splitIntoBatches(claimed: readonly ClaimedEvent[], batchSize: number): string[][] {
  const batches: string[][] = []
  let batch: string[] = []
  let bytes = 0
  for (const event of claimed) {
    if (batch.length > 0 && (batch.length >= batchSize || bytes + event.payloadBytes > maxBatchBytes)) {
      batches.push(batch)
      batch = []
      bytes = 0
    }
    batch.push(event.id)
    bytes += event.payloadBytes
  }
  if (batch.length > 0) batches.push(batch)
  return batches
}

/** A job for some events that no attempt was made at yet. One event: the job is its retry unit from the start. */
export function firstAttemptJob(
  eventIds: readonly string[],
  options: JobOptions,
  declarations?: readonly number[],
): JobInsert<JobData> {
  const expireInSeconds = Math.min(maxExpireSeconds, options.timeoutSeconds * eventIds.length + 300)
  const data = declarations === undefined ? { eventIds } : { eventIds, declarations }
  if (eventIds.length === 1) {
    return { data, expireInSeconds, ...retryFields(options.retry, 0) }
  }
  return {
    data,
    expireInSeconds,
    retryLimit: lossAllowance,
    retryDelay: 0,
    retryBackoff: false,
  }
}

/** Before all that has a place in the line, whose priorities are negative. */
const maxPriority = 2_000_000_000
const priorityMs = 200

/**
 * The priority of jobs that are inserted and fetched in one transaction: of those of a fifth of a second the same, falling with
 * time, so that what is left of them comes in the order it was inserted.
 */
export function directPriority(): number {
  return maxPriority - (Math.floor(Date.now() / priorityMs) % maxPriority)
}

/**
 * Whether an attempt was made at a job's events before. What goes straight to a worker has a higher priority than later attempts, and
 * keeps it where that worker is lost.
 */
export function isRetry({ priority, retryCount }: { priority: number; retryCount: number }): boolean {
  return priority === retryPriority || (priority > retryPriority && retryCount > 0)
}

/** The attempts made at an event so far. */
export interface PastAttempts {
  readonly attempts: number
  readonly losses?: number
  readonly failures: readonly AttemptFailure[]
}

/**
 * The job that carries one event on after an attempt that failed in a batch, or was lost with its worker. Its id follows
 * from the job before and the event, so inserting it twice is harmless.
 */
export function retryJob(
  jobId: string,
  eventId: string,
  { attempts, losses = 0, failures }: PastAttempts,
  options: JobOptions,
  delaySeconds: number,
): JobInsert<JobData> & { readonly id: string; readonly data: JobData } {
  return {
    id: derivedId(jobId, eventId),
    data: { eventIds: [eventId], attempts, ...(losses > 0 ? { losses } : {}), failures },
    expireInSeconds: Math.min(maxExpireSeconds, options.timeoutSeconds + 300),
    startAfter: delaySeconds,
    priority: retryPriority,
    ...retryFields(options.retry, attempts - losses),
  }
}

/** What pg-boss needs to know to retry a single event that has some attempts behind it. */
export function retryFields(
  retry: ResolvedRetry,
  attemptsBefore: number,
): Pick<JobInsert, 'retryLimit' | 'retryDelay' | 'retryBackoff' | 'retryDelayMax'> {
  const retryLimit = lossAllowance + Math.max(0, retry.maxAttempts - attemptsBefore - 1)
  if (!retry.backoff) return { retryLimit, retryDelay: retry.delaySeconds, retryBackoff: false }
  // pg-boss counts doublings from the job's own first attempt.
  const doubled = retry.delaySeconds * 2 ** Math.min(attemptsBefore, 16)
  return {
    retryLimit,
    retryDelay: Math.min(doubled, retry.maxDelaySeconds),
    retryBackoff: true,
    retryDelayMax: retry.maxDelaySeconds,
  }
}

/** Whether a job holds the first events of an ordering key, which are delivered one after the other. */
export function isOfKey({ keyId }: JobData): boolean {
  return keyId !== undefined
}

/** Whether a job is a delivery batch: its events are delivered in no order. */
export function isBatch(data: JobData): boolean {
  return data.eventIds.length > 1 && !isOfKey(data)
}

/** A uuid (version 8) that two ids always give again. */
function derivedId(batchId: string, eventId: string): string {
  const hex = createHash('sha256').update(`${batchId}/${eventId}`).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

/** The group of pg-boss's that jobs stand in which some declarations do not cover. */
export function declinedGroup(declarationIds: readonly number[]): string {
  return `left by ${declarationIds.join(',')}`
}

/** Places end where pg-boss's priority does. From here on, jobs go in the order they came. */
export const maxFinishTag = 2_000_000_000
