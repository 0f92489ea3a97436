import type { JobWithMetadata, PgBoss } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'

/**
 * Takes a job out of the way that is none of the bus, and that anybody who may write to pg-boss's tables can have put into its
 * queue: it stays there to be looked at, cancelled, and keeps no job beside it waiting.
 */
export function cancelForeignJob(
  boss: PgBoss,
  queue: string,
  { id }: JobWithMetadata,
  logger: BusLogger,
): void {
  logger.error({ queue, jobId: id }, 'a job does not belong to the bus: it is cancelled')
  boss.cancel(queue, id).catch((error: unknown) => {
    logger.warn({ queue, jobId: id, reason: reasonOf(error) }, 'a job could not be cancelled')
  })
}
