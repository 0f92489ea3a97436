import { DeliveryError, NonRetryableError, RetryAfterError } from '../events/errors.ts'
import type { BusLogger } from '../events/logger.ts'
import type { AttemptResult } from './attempt.ts'
import { describeFailure } from './failure.ts'
import type { EventOutcome } from './settlement.ts'

/** What an attempt means for its event. */
export function toOutcome(eventId: string, attempt: number, result: AttemptResult): EventOutcome {
  if (result.outcome === 'delivered')
    return { eventId, delivered: true, attempt, durationMs: result.durationMs }
  const { thrown } = result
  const final = thrown instanceof NonRetryableError
  const failure = describeFailure(attempt, thrown)
  if (thrown instanceof RetryAfterError)
    return { eventId, delivered: false, failure, final, retryAfterSeconds: thrown.seconds }
  return { eventId, delivered: false, failure, final }
}

export function eventNotFound(eventId: string, attempt: number): EventOutcome {
  const gone = new DeliveryError('BUS_EVENT_NOT_FOUND', 'The event is no longer in the log')
  return { eventId, delivered: false, failure: describeFailure(attempt, gone), final: true }
}

export function logFailedAttempt(
  logger: BusLogger,
  subscription: string,
  { eventId, failure }: EventOutcome & { readonly delivered: false },
): void {
  logger.warn(
    {
      subscription,
      eventId,
      attempt: failure.attempt,
      errorName: failure.name,
      errorCode: failure.code,
      reason: failure.message,
    },
    'an attempt to handle an event failed',
  )
}
