import { reasonOf } from '../../foundation/error-reason.ts'
import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'
import type { SubscriptionContext } from './subscription-context.ts'

/** Tells other processes of jobs that this one leaves behind, so that they need not find them by chance. Never rejects. */
export async function notifyProcesses({
  database,
  subscriptionId,
  logger,
}: SubscriptionContext): Promise<void> {
  try {
    await database.query(wakeSql, [wakePayload('', [subscriptionId])])
  } catch (error) {
    logger.debug({ reason: reasonOf(error) }, 'other processes could not be notified of jobs')
  }
}
