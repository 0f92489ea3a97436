import { type AttemptFailure, describeFailure, keepFailures } from '../attempts/failure.ts'
import { lossAllowance, type JobData } from './job.ts'
import type { JobWithMetadata } from 'pg-boss'
import { DeliveryError } from '../../foundation/errors.ts'

/** The claim of a worker on a job: settling it is refused by pg-boss once another attempt has begun. */
export interface JobClaim {
  readonly id: string
  readonly retryCount: number
  /** How often pg-boss runs the job again at most. */
  readonly retryLimit: number
  /** Its position in the queue, and the flow that it belongs to: see plan-jobs.ts. */
  readonly priority: number
  readonly flowKey: string | undefined
  readonly data: JobData
  /** What is known of failed attempts before this one. */
  readonly failures: readonly AttemptFailure[]
}

/** How a job is requeued whose events this process's code does not cover. */
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

/**
 * pg-boss returns the jobs of a fetch unordered. This is the order in which it selected them, and the order of the
 * events for jobs that were inserted together.
 */
export function byPosition(a: JobWithMetadata<JobData>, b: JobWithMetadata<JobData>): number {
  return (
    b.priority - a.priority ||
    Number(a.createdOn) - Number(b.createdOn) ||
    (firstEventId(a) < firstEventId(b) ? -1 : 1)
  )
}

/** For a job that may have been inserted by somebody else. */
function firstEventId({ data }: { readonly data: Partial<JobData> | null }): string {
  return Array.isArray(data?.eventIds) ? String(data.eventIds[0]) : ''
}

const uuidShape = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** Whether a job belongs to the bus: anybody with write access to pg-boss's tables can insert others into its queues. */
export function isJobOfBus({ data }: { readonly data: unknown }): boolean {
  const ids: unknown = (data as Partial<JobData> | null)?.eventIds
  return (
    Array.isArray(ids) && ids.length > 0 && ids.every((id) => typeof id === 'string' && uuidShape.test(id))
  )
}

/** Whether a job was redriven from a dead-letter queue. */
export function isRedriven(job: JobWithMetadata<JobData>): boolean {
  return (job as { sourceRootId?: string | null }).sourceRootId != null
}

/** Whether the last attempt at a job ended silently: its worker died, or was considered dead. */
export function wasWorkerLost(job: JobWithMetadata<JobData>): boolean {
  return job.retryCount > 0 && (job.output as Partial<FailureOutput> | null)?.failures === undefined
}

/**
 * Collects the failures before this attempt: pg-boss keeps the last output across a retry, the job's data holds the
 * earlier ones.
 */
export function toClaim(job: JobWithMetadata<JobData>): JobClaim {
  const output = job.output as Partial<FailureOutput> | null
  const known: readonly AttemptFailure[] = failuresIn(output) ?? failuresIn(job.data) ?? []
  const lostAttempt = job.data.eventIds.length > 1 ? 1 : (job.data.attempts ?? 0) + job.retryCount
  const unknown = wasWorkerLost(job) ? [describeFailure(lostAttempt, lostWorkerError(job.output))] : []
  return {
    id: job.id,
    retryCount: job.retryCount,
    retryLimit: job.retryLimit,
    priority: job.priority,
    flowKey: job.singletonKey ?? undefined,
    data: job.data,
    failures: keepFailures([...known, ...unknown]),
  }
}

function failuresIn(record: { readonly failures?: unknown } | null): readonly AttemptFailure[] | undefined {
  return Array.isArray(record?.failures) ? (record.failures as readonly AttemptFailure[]) : undefined
}

/** The error that pg-boss wrote when it took the job from a silent worker. */
export function lostWorkerError(output: unknown): Error {
  const message: unknown = (output as { value?: { message?: unknown } } | null)?.value?.message
  return new DeliveryError(
    'BUS_HANDLER_TIMEOUT',
    `The worker was lost: ${typeof message === 'string' ? message : 'it did not settle its job'}`,
  )
}
