import type { JobWithMetadata } from 'pg-boss'
import { DeliveryError } from '../events/errors.ts'
import { describeFailure, keepFailures, type AttemptFailure } from './failure.ts'
import type { JobData } from './job.ts'
import type { FailureOutput, JobClaim } from './settlement.ts'

/** pg-boss gives the jobs of one fetch in no order: this is the one it chose them in, and of those inserted together, by event. */
export function byPlace(a: JobWithMetadata<JobData>, b: JobWithMetadata<JobData>): number {
  return (
    b.priority - a.priority ||
    a.createdOn.getTime() - b.createdOn.getTime() ||
    ((a.data.eventIds[0] ?? '') < (b.data.eventIds[0] ?? '') ? -1 : 1)
  )
}

/** Whether a job came out of a dead-letter queue. */
export function isCopy(job: JobWithMetadata<JobData>): boolean {
  return (job as { sourceRootId?: string | null }).sourceRootId != null
}

/** Whether the last attempt at a job ended without a word: its worker died, or was taken for dead. */
export function wasLost(job: JobWithMetadata<JobData>): boolean {
  return job.retryCount > 0 && (job.output as Partial<FailureOutput> | null)?.failures === undefined
}

/** The failures before this attempt: pg-boss keeps the last output over a retry, the job's data what came before. */
export function toClaim(job: JobWithMetadata<JobData>): JobClaim {
  const output = job.output as Partial<FailureOutput> | null
  const known: readonly AttemptFailure[] = output?.failures ?? job.data.failures ?? []
  const lostAttempt = job.data.eventIds.length > 1 ? 1 : (job.data.attempts ?? 0) + job.retryCount
  const unknown = wasLost(job) ? [describeFailure(lostAttempt, lostWorkerError(job.output))] : []
  return {
    id: job.id,
    retryCount: job.retryCount,
    retryLimit: job.retryLimit,
    priority: job.priority,
    lineKey: job.singletonKey ?? undefined,
    data: job.data,
    failures: keepFailures([...known, ...unknown]),
  }
}

/** What pg-boss wrote when it took the job from a worker that was not heard of. */
export function lostWorkerError(output: unknown): Error {
  const message: unknown = (output as { value?: { message?: unknown } } | null)?.value?.message
  return new DeliveryError(
    'BUS_HANDLER_TIMEOUT',
    `The worker was lost: ${typeof message === 'string' ? message : 'it did not settle its job'}`,
  )
}
