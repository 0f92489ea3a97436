import { createHash, randomUUID } from 'node:crypto'
import type { JobInsert } from 'pg-boss'
import type { ClaimedEvent } from '../../outbox/relay/claim.ts'
import type { AttemptFailure } from '../attempts/failure.ts'
import { jobIdOf, maxSpanMs, timeOf } from './job-id.ts'
import type { ResolvedRetry } from '../subscriptions/retry-options.ts'
import type { DurableOptions } from '../subscriptions/subscription.ts'

/** The data of a job. It holds ids only; the events stay in the log. */
export interface JobData {
  /** The events to deliver. Several events are a delivery batch, or the first events of a key. */
  readonly eventIds: readonly string[]
  /** Attempts made before this job existed, including those whose worker was lost. */
  readonly attempts?: number
  /** How many of them were lost with a worker that held other events too, so that it is unknown which event was to blame. */
  readonly losses?: number
  /** The retry count of the claim under which the event ran as the only suspect of its process: see quarantine.ts. */
  readonly isolatedAt?: number
  /** How often these events were not found in the log: see job-events.ts. */
  readonly missCount?: number
  /** The known failures of these attempts. */
  readonly failures?: readonly AttemptFailure[]
  /** The key in `bus.ordered_keys` whose first events these are: they are delivered one after the other. */
  readonly keyId?: string
  /** The declarations whose predicate the events satisfy: see coverage.ts. */
  readonly declarations?: readonly number[]
  /** The declarations whose code does not cover its events and has requeued it. */
  readonly declinedBy?: readonly number[]
  /** The replay that its events are of. */
  readonly replay?: ReplayOfJob
}

/** A replay to the subscription of a job. */
export interface ReplayOfJob {
  /** Its operation. */
  readonly operationId: string
  /** Stands for the subscription in the ledger: an id of `bus.replays`. */
  readonly ledgerId: number
}

/** A job to insert. */
export type NewJob = JobInsert<JobData>

/** The options of a subscription that its jobs are made with. */
type JobOptions = Pick<DurableOptions, 'timeoutSeconds' | 'retry'>

/** Approximate maximum bytes of payload in one job, which bounds a worker's memory. */
export const maxBatchBytes = 1024 * 1024

/**
 * The longest time that a job may be active. A dead worker is detected much earlier, by its heartbeat. pg-boss's
 * maximum is a day.
 */
const maxExpireSeconds = 86_400

/**
 * Retries in addition to those of the subscription. pg-boss counts a lost worker as a failed attempt, and would
 * dead-letter an event that only shared its process with a poison event. The bus decides that itself, so for pg-boss
 * there is always another retry.
 */
export const lossAllowance = 1_000_000

/**
 * The priority of jobs that were tried before. The priority of a first attempt is its negated finish tag, or 0 without one. So a fetch
 * can select either kind; only a job that was handed directly to a worker, which was lost, keeps a higher one: see `isRetry`.
 */
export const retryPriority = 1

/** Batches in publish order, each bounded in events, in bytes, and in the time between its events, which the job's id expresses. */
export function splitIntoBatches(
  claimed: readonly ClaimedEvent[],
  batchSize: number,
  maxSpan = maxSpanMs,
): ClaimedEvent[][] {
  const batches: ClaimedEvent[][] = []
  let batch: ClaimedEvent[] = []
  let bytes = 0
  let first = Number.POSITIVE_INFINITY
  let last = 0
  for (const event of claimed) {
    const time = timeOf(event)
    first = Math.min(first, time)
    last = Math.max(last, time)
    const isFull =
      batch.length >= batchSize || bytes + event.payloadBytes > maxBatchBytes || last - first > maxSpan
    if (batch.length > 0 && isFull) {
      batches.push(batch)
      batch = []
      bytes = 0
      first = time
      last = time
    }
    batch.push(event)
    bytes += event.payloadBytes
  }
  if (batch.length > 0) batches.push(batch)
  return batches
}

/** A job for some events without a previous attempt. With a single event, the job is also the unit of its retries. */
export function newJob(
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

/** Above every finish tag, because their priorities are negative. */
const maxPriority = 2_000_000_000
const priorityMs = 200

/**
 * The priority of jobs that are inserted and fetched in one transaction: constant for a fifth of a second, and falling
 * with time, so that remaining jobs are fetched in the order of their insertion.
 */
export function directPriority(): number {
  return maxPriority - (Math.floor(Date.now() / priorityMs) % maxPriority)
}

/**
 * Whether an attempt was made at a job's events before. A job that goes directly to a worker has a higher priority than
 * retries, and keeps it if that worker is lost.
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
 * The job that retries one event after an attempt that failed in a batch, or was lost with its worker. Its id is
 * derived from the previous job and the event, so inserting it twice is harmless.
 */
export function retryJob(
  { id, data: { replay } }: { readonly id: string; readonly data: JobData },
  eventId: string,
  { attempts, losses = 0, failures }: PastAttempts,
  options: JobOptions,
  delaySeconds: number,
): JobInsert<JobData> & { readonly id: string; readonly data: JobData } {
  return {
    id: derivedId(id, eventId),
    data: {
      eventIds: [eventId],
      attempts,
      ...(losses > 0 ? { losses } : {}),
      failures,
      ...(replay === undefined ? {} : { replay }),
    },
    expireInSeconds: Math.min(maxExpireSeconds, options.timeoutSeconds + 300),
    startAfter: delaySeconds,
    priority: retryPriority,
    ...retryFields(options.retry, attempts - losses),
  }
}

/** The options with which pg-boss retries a single event after some attempts. */
export function retryFields(
  retry: ResolvedRetry,
  attemptsBefore: number,
): Pick<JobInsert, 'retryLimit' | 'retryDelay' | 'retryBackoff' | 'retryDelayMax'> {
  const retryLimit = lossAllowance + Math.max(0, retry.maxAttempts - attemptsBefore - 1)
  // The delays of a schedule are written with each failure: what pg-boss retries by itself has lost its worker, and runs again at once.
  if (retry.delays !== undefined) return { retryLimit, retryDelay: 0, retryBackoff: false }
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

/** A job for some claimed events. */
export function firstJob(
  events: readonly ClaimedEvent[],
  options: JobOptions,
  declarations?: readonly number[],
): JobInsert<JobData> {
  const ids = events.map(({ id }) => id)
  return { ...newJob(ids, options, declarations), id: jobIdOf(events) }
}

/**
 * The priority of jobs in the background, those of replays and of catching up: behind every finish tag, so that a live event waits for what is
 * running at most. They have no flow: no job is to stand behind them. `bus.is_background_job` has the same number.
 */
export const backgroundPriority = -2_000_000_000

export function isInBackground({ priority }: { readonly priority: number }): boolean {
  return priority <= backgroundPriority
}

/** The jobs, in the background, for events of the log. Without a replay they are what a claim would have made of them, and are found as such. */
export function backgroundJobs(
  events: readonly ClaimedEvent[],
  options: JobOptions & Pick<DurableOptions, 'batchSize'>,
  declarations: readonly number[] | undefined,
  replay: ReplayOfJob | undefined,
): JobInsert<JobData>[] {
  const maxSpan = replay === undefined ? maxSpanMs : Number.POSITIVE_INFINITY
  return splitIntoBatches(events, options.batchSize, maxSpan).map((batch) => {
    const job = firstJob(batch, options, declarations)
    if (replay === undefined) return { ...job, priority: backgroundPriority }
    const data = { eventIds: batch.map(({ id }) => id), ...job.data, replay }
    return { ...job, data, id: randomUUID(), priority: backgroundPriority }
  })
}

/** Whether a job holds the first events of an ordering key, which are delivered one after the other. */
export function isOfKey({ keyId }: JobData): boolean {
  return keyId !== undefined
}

/** Whether a job is a delivery batch: its events are delivered in any order. */
export function isBatch(data: JobData): boolean {
  return data.eventIds.length > 1 && !isOfKey(data)
}

/** A uuid (version 8) that two ids always map to. */
function derivedId(batchId: string, eventId: string): string {
  const hex = createHash('sha256').update(`${batchId}/${eventId}`).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

/** Finish tags end where pg-boss's priority does. Beyond this one, jobs are fetched in the order of their insertion. */
export const maxFinishTag = -backgroundPriority
