import type pg from 'pg'
import type { JobInsert, PgBoss } from 'pg-boss'
import { inTransaction } from '../jobs/boss.ts'
import type { JobData } from '../jobs/job.ts'
import { ensureQueues, queueName } from '../jobs/queues.ts'
import type { RegisteredSubscription } from '../registry/registry.ts'
import { isLockTimeout } from '../../database/database-errors.ts'

/** Inserts jobs of a subscription in the claiming transaction. */
export async function insertJobs(
  client: pg.ClientBase,
  boss: PgBoss,
  subscription: RegisteredSubscription,
  jobs: readonly JobInsert<JobData>[],
): Promise<void> {
  try {
    await boss.insert(queueName(subscription.name), [...jobs], inTransaction(client))
  } catch (error) {
    restoreQueues(boss, [subscription], error)
    throw error
  }
}

/**
 * After an error, somebody may have deleted the queue: the claim rolls back and is retried with the queue restored. Not awaited,
 * because the claim may hold the only connection.
 */
export function restoreQueues(
  boss: PgBoss,
  subscriptions: readonly RegisteredSubscription[],
  error: unknown,
): void {
  if (isLockTimeout(error)) return
  for (const subscription of subscriptions) void ensureQueues(boss, subscription).catch(() => {})
}
