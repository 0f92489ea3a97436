import type { FailureOutput } from './job-claim.ts'
import type { SubscriptionContext } from './subscription-context.ts'

/** An event that has become a dead letter, and how it failed. */
export interface DeadLettered {
  readonly eventId: string
  readonly output: FailureOutput
}

/** Logs events that have become dead letters, after the commit. */
export function logDeadLetters(
  { logger, subscription }: Pick<SubscriptionContext, 'logger' | 'subscription'>,
  deadLetters: readonly DeadLettered[],
): void {
  for (const { eventId, output } of deadLetters) {
    const last = output.failures.at(-1)
    logger.error(
      {
        subscription: subscription.name,
        id: eventId,
        attempts: output.attempts,
        errorName: last?.name,
        errorCode: last?.code,
        reason: last?.message,
      },
      'an event went to the dead letters',
    )
  }
}
