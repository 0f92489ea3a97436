import type { AttemptFailure } from '../attempts/failure.ts'
import { lossAllowance, type JobData } from './job.ts'

/** The claim of a worker on a job: settling it is refused by pg-boss once another attempt has begun. */
export interface JobClaim {
  readonly id: string
  readonly retryCount: number
  /** How often pg-boss runs the job again at most. */
  readonly retryLimit: number
  /** Its position in the queue, and the fairness key it stood under: see fair-batches.ts. */
  readonly priority: number
  readonly fairnessKey: string | undefined
  readonly data: JobData
  /** What is known of failed attempts before this one. */
  readonly failures: readonly AttemptFailure[]
}

/** How a job goes back whose events this process's code does not cover. */
export interface Declined {
  /** The declarations whose code has declined it. */
  readonly by: readonly number[]
  /** Whether it goes behind everything else, because no live process covers its events. */
  readonly isLast: boolean
}

/** What pg-boss keeps as the output of a failed job, and copies into its dead letter. */
export interface FailureOutput {
  readonly attempts: number
  readonly final: boolean
  readonly failures: readonly AttemptFailure[]
}

/** What tells pg-boss which attempt at a job this is. */
export function fence({ id, retryCount }: JobClaim): { id: string; retryCount: number } {
  return { id, retryCount }
}

/** Whether no attempt is left at a single event after this one. */
export function isLastAttempt({ retryCount, retryLimit }: JobClaim): boolean {
  return retryCount >= retryLimit - lossAllowance
}
