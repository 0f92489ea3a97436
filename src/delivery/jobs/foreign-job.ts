import type { JobWithMetadata } from 'pg-boss'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { SubscriptionContext } from './subscription-context.ts'

/**
 * Cancels a job that is not of the bus: anybody who may write to pg-boss's tables can have put it into the queue. It stays there to be
 * looked at, and does not make other jobs wait.
 */
export function cancelForeignJob(
  { boss, queue, logger }: SubscriptionContext,
  { id }: JobWithMetadata,
): void {
  logger.error({ queue, jobId: id }, 'a job does not belong to the bus: it is cancelled')
  boss.cancel(queue, id).catch((error: unknown) => {
    logger.warn({ queue, jobId: id, reason: reasonOf(error) }, 'a job could not be cancelled')
  })
}
