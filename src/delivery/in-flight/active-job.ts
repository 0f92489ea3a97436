import { NonRetryableError } from '../../foundation/errors.ts'
import type { AbortReason, RunningAttempt } from '../attempts/attempt.ts'
import { maxPayloadAgeMs, noEvents, type LoadedEvents } from '../attempts/event-reader.ts'
import { isBatch, isTriedBefore } from '../jobs/job.ts'
import type { Lane } from '../concurrency/handler-slots.ts'
import type { JobClaim, LeftToOthers } from '../jobs/job-claim.ts'
import type { EventOutcome } from '../attempts/outcome.ts'

/** A job in hand. */
export interface ActiveJob {
  readonly claim: JobClaim
  readonly lane: Lane
  readonly startedAt: number
  /** Of the time it was queued: the option of the subscription may have changed since. */
  readonly heartbeatSeconds: number
  /** When the claim was last known to be current, in the time of `performance.now()`. */
  confirmedAt: number
  readonly unsettled: EventOutcome[]
  readonly running: Map<string, Pick<RunningAttempt, 'abort'>>
  readonly left: Set<string>
  /** Its events, as they were read last. */
  events: LoadedEvents
  refreshing: Promise<void> | undefined
  /** Aborted by a shutdown, or because its claim may be another worker's: a failure from now on is no attempt. */
  cutShort: boolean
  /** When its first event was begun, in the time of `performance.now()`. */
  beganAt: number | undefined
  /** Resolves when events that it has not begun are in a job of their own. */
  splitting: Promise<void> | undefined
  /** Those events, while they are not. */
  rest: readonly string[]
  /** The tenants of the events that are counted for a tenant's limit. */
  readonly held: Map<string, string>
  /** Of the events left, how many do not wait for a place among the handlers, but for something else. */
  asideCount: number
  /** How long what goes back is put off, and under which key it stands in line. */
  delaySeconds: number
  lineKey: string | undefined
  /** Events of it were not found in the log, and are looked for again: see missing-event.ts. */
  isMissing: boolean
  /** Its first event is tried while the circuit breaker is open. */
  isProbe: boolean
  /** Why an attempt failed that does not count. */
  forgiven: { readonly thrown: unknown } | undefined
  /** Those of its events that only other code of the subscription covers: see coverage.ts. */
  uncovered: ReadonlySet<string>
  /** How those go back, once that is known. */
  leftToOthers: LeftToOthers | undefined
  /** The failed attempt of its event whose handler runs on, while its key waits for that: see overruns.ts. */
  overrun: EventOutcome | undefined
  /** Resolves when that has been written down for others to see. */
  marking: Promise<void> | undefined
  /** Another worker has it. */
  lost: boolean
  /** Out of this worker's hands. */
  done: boolean
  /** Its completion is being committed: a heartbeat that misses it means nothing. */
  completing: boolean
}

/** A job that was fetched no earlier than `fetchedAt`, in the time of `performance.now()`. */
export function createActiveJob(claim: JobClaim, fetchedAt: number, heartbeatSeconds: number): ActiveJob {
  return {
    claim,
    lane: laneOf(claim),
    startedAt: performance.now(),
    heartbeatSeconds,
    confirmedAt: fetchedAt,
    unsettled: [],
    running: new Map(),
    left: new Set(claim.data.eventIds),
    events: noEvents,
    refreshing: undefined,
    cutShort: false,
    beganAt: undefined,
    splitting: undefined,
    rest: [],
    held: new Map(),
    asideCount: 0,
    delaySeconds: 0,
    lineKey: undefined,
    isMissing: false,
    isProbe: false,
    forgiven: undefined,
    uncovered: new Set(),
    leftToOthers: undefined,
    overrun: undefined,
    marking: undefined,
    lost: false,
    done: false,
    completing: false,
  }
}

/**
 * Makes sure that the events of a job are not older than {@link maxPayloadAgeMs}: undefined where they are not, and else a
 * promise that resolves when they have been read again.
 */
export function refreshEvents(
  job: ActiveJob,
  load: (ids: readonly string[]) => Promise<LoadedEvents>,
): Promise<void> | undefined {
  if (performance.now() - job.events.readAt < maxPayloadAgeMs) return undefined
  job.refreshing ??= load([...job.left])
    .then((events) => {
      job.events = events
    })
    .finally(() => {
      job.refreshing = undefined
    })
  return job.refreshing
}

/** Whether a job has the first events of a key, which are delivered one after the other. */
export function isKey({ claim }: Pick<ActiveJob, 'claim'>): boolean {
  return claim.data.keyId !== undefined
}

/** Whether this process can begin none of the events that are left of a job. */
export function isUncovered({ claim, uncovered, left }: ActiveJob): boolean {
  if (uncovered.size === 0 || left.size === 0) return false
  return [...left].slice(0, isKey({ claim }) ? 1 : undefined).every((id) => uncovered.has(id))
}

/** Which of a worker's places the events of a job take: those of first attempts, or of what was tried before. */
export function laneOf(job: Pick<JobClaim, 'priority' | 'retryCount'>): Lane {
  return isTriedBefore(job) ? 'later' : 'first'
}

/** How much of the concurrency a job takes up: the events of a key run one after the other. */
export function weightOf({ claim, left, asideCount }: ActiveJob): number {
  const count = Math.max(0, left.size - asideCount)
  return claim.data.keyId === undefined ? count : asideCount > 0 ? 0 : Math.min(count, 1)
}

/**
 * A batch begins events for so long; what it has not begun by then goes back to the line, behind whoever waits, so that
 * slow handlers keep no tenant waiting for a whole batch of another.
 */
const sliceMs = 250

/** Whether a batch has had its time. */
export function isSliceOver({ claim, beganAt }: Pick<ActiveJob, 'claim' | 'beganAt'>): boolean {
  return beganAt !== undefined && isBatch(claim.data) && performance.now() - beganAt > sliceMs
}

/** Whether a failed attempt counts for nothing, so that its event goes back as it came: then that is noted. */
export function forgive(job: Pick<ActiveJob, 'cutShort' | 'isProbe' | 'forgiven'>, thrown: unknown): boolean {
  if (!job.cutShort && (!job.isProbe || thrown instanceof NonRetryableError)) return false
  job.forgiven = { thrown }
  return true
}

export function abortAll(job: ActiveJob, reason: AbortReason): void {
  for (const running of job.running.values()) running.abort(reason)
}
