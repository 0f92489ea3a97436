import type { JobWithMetadata } from 'pg-boss'
import { DeliveryError } from '../../foundation/errors.ts'
import { describeFailure, keepFailures, type AttemptFailure } from '../attempts/failure.ts'
import type { JobData } from './job.ts'
import type { FailureOutput, JobClaim } from './job-claim.ts'

/** pg-boss gives the jobs of one fetch in no order: this is the one it chose them in, and of those inserted together, by event. */
export function byPosition(a: JobWithMetadata<JobData>, b: JobWithMetadata<JobData>): number {
  return (
    b.priority - a.priority ||
    Number(a.createdOn) - Number(b.createdOn) ||
    (firstEventId(a) < firstEventId(b) ? -1 : 1)
  )
}

/** Of a job that somebody else may have put into the queue. */
function firstEventId({ data }: { readonly data: Partial<JobData> | null }): string {
  return Array.isArray(data?.eventIds) ? String(data.eventIds[0]) : ''
}

const uuidShape = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** Whether a job is one of the bus: anybody who may write to pg-boss's tables can put others into its queues. */
export function isJobOfBus({ data }: { readonly data: unknown }): boolean {
  const ids: unknown = (data as Partial<JobData> | null)?.eventIds
  return (
    Array.isArray(ids) && ids.length > 0 && ids.every((id) => typeof id === 'string' && uuidShape.test(id))
  )
}

/** Whether a job came out of a dead-letter queue. */
export function isRedriven(job: JobWithMetadata<JobData>): boolean {
  return (job as { sourceRootId?: string | null }).sourceRootId != null
}

/** Whether the last attempt at a job ended without a word: its worker died, or was taken for dead. */
export function wasLost(job: JobWithMetadata<JobData>): boolean {
  return job.retryCount > 0 && (job.output as Partial<FailureOutput> | null)?.failures === undefined
}

/** The failures before this attempt: pg-boss keeps the last output over a retry, the job's data what came before. */
export function toClaim(job: JobWithMetadata<JobData>): JobClaim {
  const output = job.output as Partial<FailureOutput> | null
  const known: readonly AttemptFailure[] = failuresIn(output) ?? failuresIn(job.data) ?? []
  const lostAttempt = job.data.eventIds.length > 1 ? 1 : (job.data.attempts ?? 0) + job.retryCount
  const unknown = wasLost(job) ? [describeFailure(lostAttempt, lostWorkerError(job.output))] : []
  return {
    id: job.id,
    retryCount: job.retryCount,
    retryLimit: job.retryLimit,
    priority: job.priority,
    fairnessKey: job.singletonKey ?? undefined,
    data: job.data,
    failures: keepFailures([...known, ...unknown]),
  }
}

function failuresIn(record: { readonly failures?: unknown } | null): readonly AttemptFailure[] | undefined {
  return Array.isArray(record?.failures) ? (record.failures as readonly AttemptFailure[]) : undefined
}

/** What pg-boss wrote when it took the job from a worker that was not heard of. */
export function lostWorkerError(output: unknown): Error {
  const message: unknown = (output as { value?: { message?: unknown } } | null)?.value?.message
  return new DeliveryError(
    'BUS_HANDLER_TIMEOUT',
    `The worker was lost: ${typeof message === 'string' ? message : 'it did not settle its job'}`,
  )
}
