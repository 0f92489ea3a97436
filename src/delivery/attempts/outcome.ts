import { DeliveryError, NonRetryableError, RetryAfterError } from '../../foundation/errors.ts'
import { limits } from '../../foundation/limits.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { AttemptResult } from './attempt.ts'
import type { LoadedEvents } from './event-reader.ts'
import { describeFailure, type AttemptFailure } from './failure.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import { leastDelaySeconds } from '../subscriptions/retry-delays.ts'

/**
 * When an event that is newer than this process knows is tried again: until then a deployment may have come further. With the
 * five attempts of the default it may take four minutes.
 */
const tooNewRetrySeconds = 60

/** What an attempt means for its event. */
export function toOutcome(eventId: string, attempt: number, result: AttemptResult): EventOutcome {
  if (result.outcome === 'delivered')
    return { eventId, delivered: true, attempt, durationMs: result.durationMs }
  const { thrown, durationMs } = result
  const final = thrown instanceof NonRetryableError
  const failure = describeFailure(attempt, thrown)
  const failed: EventOutcome = { eventId, delivered: false, failure, final, durationMs }
  if (thrown instanceof RetryAfterError && isRetryAfter(thrown.seconds))
    return { ...failed, retryAfterSeconds: thrown.seconds }
  if (thrown instanceof DeliveryError && thrown.code === 'BUS_EVENT_TOO_NEW')
    return { ...failed, retryAfterSeconds: tooNewRetrySeconds }
  return failed
}

/** Checked again: the error may be of another version of this package, with other limits. */
function isRetryAfter(seconds: unknown): seconds is number {
  return typeof seconds === 'number' && seconds >= 0 && seconds <= limits.retryAfterSeconds
}

export function eventNotFound(eventId: string, attempt: number): EventOutcome {
  const gone = new DeliveryError('BUS_EVENT_NOT_FOUND', 'The event is no longer in the log')
  return { eventId, delivered: false, failure: describeFailure(attempt, gone), final: true }
}

/** An event that was routed for code which is gone, and that newer code has left out. */
export function eventNotCovered(eventId: string, attempt: number): EventOutcome {
  const left = new DeliveryError(
    'BUS_EVENT_NOT_COVERED',
    'No code of the subscription covers the event any more: what had it is gone, and newer code has left it out',
  )
  return { eventId, delivered: false, failure: describeFailure(attempt, left), final: true }
}

/** An event whose time passed before this attempt: there is nothing left to do for it. */
export function expiredBefore(eventId: string, attempt: number): EventOutcome {
  return { eventId, delivered: true, expired: true, attempt: attempt - 1, durationMs: 0 }
}

/** An event that was erased before this attempt: nobody gets it any more. */
export function erasedBefore(eventId: string, attempt: number): EventOutcome {
  return { eventId, delivered: true, erased: true, attempt: attempt - 1, durationMs: 0 }
}

/** @param events - what is known of the event: its type and whose it is */
export function logUndelivered(
  logger: BusLogger,
  { name, retry }: Pick<Subscription, 'name' | 'retry'>,
  outcome: EventOutcome,
  events: Pick<LoadedEvents, 'tenantOf' | 'typeOf'>,
): void {
  const { eventId } = outcome
  const about = {
    subscription: name,
    id: eventId,
    type: events.typeOf(eventId),
    tenantId: events.tenantOf(eventId),
  }
  if (!outcome.delivered) {
    const { attempt, name: errorName, code, message } = outcome.failure
    const isLast = outcome.final || attempt >= retry.maxAttempts
    logger.warn(
      {
        ...about,
        attempt,
        maxAttempts: retry.maxAttempts,
        nextInSeconds: isLast ? undefined : (outcome.retryAfterSeconds ?? leastDelaySeconds(retry, attempt)),
        durationMs: outcome.durationMs === undefined ? undefined : Math.round(outcome.durationMs),
        errorName,
        errorCode: code,
        reason: message,
      },
      'an attempt to handle an event failed',
    )
  } else if (outcome.expired === true) {
    const fields = { ...about, attempts: outcome.attempt }
    logger.info(fields, 'an event expired before it was delivered')
  } else if (outcome.erased === true) {
    const fields = { ...about, attempts: outcome.attempt }
    logger.info(fields, 'an event was erased before it was delivered')
  }
}

/** What became of one event of a job. */
export type EventOutcome =
  | {
      readonly eventId: string
      readonly delivered: true
      /** It was not, and need not be any more: its time has passed. `attempt` is then the number of those that failed. */
      readonly expired?: true
      /** It was erased before it was delivered: as `expired`. */
      readonly erased?: true
      readonly attempt: number
      readonly durationMs: number
    }
  | {
      readonly eventId: string
      readonly delivered: false
      readonly failure: AttemptFailure
      readonly final: boolean
      /** How long the handler ran, where one did. */
      readonly durationMs?: number | undefined
      /** When the handler said so: how long to wait before the next attempt, in place of what `retry` says. */
      readonly retryAfterSeconds?: number
    }
