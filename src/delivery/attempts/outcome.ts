import type { StoredEvent } from '../../events/envelope.ts'
import { errorTypeOf, otherErrorType } from '../../foundation/error-type.ts'
import { DeliveryError, NonRetryableError, RetryAfterError } from '../../foundation/errors.ts'
import { limits } from '../../foundation/limits.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { AttemptTrace } from '../../telemetry/process-spans.ts'
import type { Recorder } from '../../telemetry/recorder.ts'
import type { AttemptResult } from './attempt.ts'
import type { LoadedEvents } from './event-reader.ts'
import { describeFailure, type AttemptFailure } from './failure.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import { leastDelaySeconds } from '../subscriptions/retry-delays.ts'

/**
 * The delay before retrying an event that is newer than this process knows: a deployment may have progressed by then.
 * The default of sixteen attempts covers a quarter of an hour.
 */
const tooNewRetrySeconds = 60

/** Undefined where the event could not be read. */
interface KnownOfEvent {
  readonly tenantId: string | undefined
  readonly type?: string | undefined
}

/** Converts the result of an attempt to the outcome of its event. */
export function toOutcome(
  { id: eventId, tenantId, type }: Pick<StoredEvent, 'id'> & KnownOfEvent,
  attempt: number,
  result: AttemptResult,
): EventOutcome {
  const { trace } = result
  if (result.outcome === 'delivered')
    return { eventId, delivered: true, attempt, durationMs: result.durationMs, trace }
  const { thrown, durationMs } = result
  const final = thrown instanceof NonRetryableError
  const failed: EventOutcome = {
    ...{ eventId, tenantId, type, delivered: false, final, durationMs, trace },
    ...failureOf(attempt, thrown),
  }
  if (thrown instanceof RetryAfterError && isRetryAfter(thrown.seconds))
    return { ...failed, retryAfterSeconds: thrown.seconds }
  if (thrown instanceof DeliveryError && thrown.code === 'BUS_EVENT_TOO_NEW')
    return { ...failed, retryAfterSeconds: tooNewRetrySeconds }
  return failed
}

/** What an outcome says of a thrown value. */
export function failureOf(
  attempt: number,
  thrown: unknown,
): { readonly failure: AttemptFailure; readonly errorType: string } {
  return { failure: describeFailure(attempt, thrown), errorType: errorTypeOf(thrown) }
}

/** Checked again, because the error may come from another version of this package, with other limits. */
function isRetryAfter(seconds: unknown): seconds is number {
  return typeof seconds === 'number' && seconds >= 0 && seconds <= limits.retryAfterSeconds
}

export function eventNotFound(eventId: string, attempt: number): EventOutcome {
  const gone = new DeliveryError('BUS_EVENT_NOT_FOUND', 'The event is no longer in the log')
  return { eventId, delivered: false, final: true, ...failureOf(attempt, gone) }
}

/** The outcome of an event that was routed for code that is gone, and that newer code does not cover. */
export function eventNotCovered(eventId: string, attempt: number): EventOutcome {
  const left = new DeliveryError(
    'BUS_EVENT_NOT_COVERED',
    'No code of the subscription covers the event any more: what had it is gone, and newer code has left it out',
  )
  return { eventId, delivered: false, final: true, ...failureOf(attempt, left) }
}

/** The outcome of an event that expired before this attempt. */
export function expiredBefore(eventId: string, attempt: number): EventOutcome {
  return { eventId, delivered: true, expired: true, attempt: attempt - 1, durationMs: 0 }
}

/** The outcome of an event that was erased before this attempt. */
export function erasedBefore(eventId: string, attempt: number): EventOutcome {
  return { eventId, delivered: true, erased: true, attempt: attempt - 1, durationMs: 0 }
}

/** @param events - provide the event's type and tenant */
export function logUndelivered(
  logger: BusLogger,
  { name, retry }: Pick<Subscription, 'name' | 'retry'>,
  outcome: EventOutcome,
  events: Pick<LoadedEvents, 'tenantOf' | 'typeOf'>,
): void {
  // Nearly all are delivered: for those nothing is looked up.
  if (outcome.delivered && outcome.expired !== true && outcome.erased !== true) return
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

/**
 * Tells of the outcome of an attempt.
 *
 * @param waitMs - how long the event waited for its handler, if this was its first attempt
 * @param events - provide the event's type
 */
export function tellAttempt(
  recorder: Recorder,
  subscription: string,
  outcome: EventOutcome,
  waitMs: number | undefined,
  events: Pick<LoadedEvents, 'typeOf'>,
): void {
  if (!recorder.isOn) return
  const type = events.typeOf(outcome.eventId)
  if (outcome.delivered && outcome.expired === true) return recorder.expired(type, subscription)
  if (outcome.delivered && outcome.erased === true) return
  const seconds = outcome.durationMs === undefined ? undefined : outcome.durationMs / 1000
  const waitSeconds = waitMs === undefined ? undefined : waitMs / 1000
  const errorType = outcome.delivered ? undefined : (outcome.errorType ?? otherErrorType)
  recorder.attempt(type, subscription, seconds, waitSeconds, errorType)
}

/** The outcome of one event of a job. */
export type EventOutcome =
  | {
      readonly eventId: string
      readonly delivered: true
      /** It expired before it was delivered. `attempt` is then the number of failed attempts. */
      readonly expired?: true
      /** It was erased before it was delivered. `attempt` as for `expired`. */
      readonly erased?: true
      readonly attempt: number
      readonly durationMs: number
      readonly trace?: AttemptTrace | undefined
    }
  | {
      readonly eventId: string
      /** If they are known: the event may be missing. */
      readonly tenantId?: string | undefined
      readonly type?: string | undefined
      readonly delivered: false
      readonly failure: AttemptFailure
      /** For metrics: see error-type.ts. */
      readonly errorType?: string | undefined
      readonly final: boolean
      /** The duration of the handler, if one ran. */
      readonly durationMs?: number | undefined
      /** The delay that the handler requested before the next attempt; it replaces the delay of `retry`. */
      readonly retryAfterSeconds?: number
      readonly trace?: AttemptTrace | undefined
    }

/** The duration of a subscription's handlers in this process. */
export interface HandlerMetrics {
  /** The average over about the latest twenty successful handlers. */
  readonly averageMs: number
  readonly handledCount: number
  readonly deliveredCount: number
  record: (outcome: EventOutcome) => void
}

export function createHandlerMetrics(): HandlerMetrics {
  let averageMs = 0
  let handledCount = 0
  let deliveredCount = 0
  return {
    get averageMs() {
      return averageMs
    },
    get handledCount() {
      return handledCount
    },
    get deliveredCount() {
      return deliveredCount
    },
    record(outcome) {
      if (outcome.delivered && (outcome.expired ?? outcome.erased) === true) return
      handledCount += 1
      if (!outcome.delivered) return
      deliveredCount += 1
      averageMs += (outcome.durationMs - averageMs) / Math.min(handledCount, 20)
    },
  }
}
