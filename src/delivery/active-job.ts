import type { RunningAttempt } from './attempt.ts'
import type { EventOutcome, JobClaim } from './settlement.ts'

/** A job in hand. */
export interface ActiveJob {
  readonly claim: JobClaim
  readonly startedAt: number
  /** Of the time it was queued: the option of the subscription may have changed since. */
  readonly heartbeatSeconds: number
  /** When the claim was last known to be current, in the time of `performance.now()`. */
  confirmedAt: number
  readonly unsettled: EventOutcome[]
  readonly running: Map<string, Pick<RunningAttempt, 'abort'>>
  readonly left: Set<string>
  /** Aborted by a shutdown: a failure from now on is no attempt. */
  cutShort: boolean
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
    startedAt: performance.now(),
    heartbeatSeconds,
    confirmedAt: fetchedAt,
    unsettled: [],
    running: new Map(),
    left: new Set(claim.data.eventIds),
    cutShort: false,
    lost: false,
    done: false,
    completing: false,
  }
}

/** How much of the concurrency a job takes up: the events of a key run one after the other. */
export function weightOf({ claim, left }: ActiveJob): number {
  return claim.data.keyId === undefined ? left.size : Math.min(left.size, 1)
}
