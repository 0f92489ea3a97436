import {
  SpanKind,
  trace,
  type Attributes,
  type Context,
  type SpanContext,
  type Tracer,
} from '@opentelemetry/api'
import type { StoredEvent } from '../events/envelope.ts'
import { eventAttributes, operationAttributes, spanAttributeNames, spanName } from './attributes.ts'
import { GuardedSpan } from './guarded-span.ts'
import { activeContext, type CarriedContext } from './trace-context.ts'

/** What a handler is called with, as its span says it. */
export interface HandlerCall {
  readonly event: StoredEvent
  readonly subscription: string
  readonly attempt: number
  /** The operation, if the event is replayed. */
  readonly replayId: string | undefined
}

/** Where the span of a handler call is, for the span that settles it. */
export interface AttemptTrace {
  readonly type: string
  /** The span of the handler call. */
  readonly processed: SpanContext | undefined
  /** The span that created the event. */
  readonly created: SpanContext | undefined
}

export interface ProcessSpan {
  readonly span: GuardedSpan
  readonly attemptTrace: AttemptTrace
}

/**
 * A handler call continues the trace of its event for so long after the event was published. Tools put a trace together within some
 * minutes, and show one of days as a mistake: docs/adr/0037.
 */
const maxParentAgeMs = 3_600_000

/**
 * Begins the span of one call of a handler. It links to the span that created the event. It is also its child if this is the first attempt at
 * an event that was published lately, and no other span is active; replays and later attempts begin a trace of their own.
 *
 * @param carried - what the metadata of the event carry
 */
export function startProcessSpan(
  tracer: Tracer,
  call: HandlerCall,
  carried: CarriedContext,
): ProcessSpan | undefined {
  const { event, subscription } = call
  const { created } = carried
  const span = GuardedSpan.start(
    tracer,
    spanName('process', event.type),
    {
      kind: SpanKind.CONSUMER,
      attributes: operationAttributes('process', event.type, subscription),
      links: created === undefined ? [] : [{ context: created }],
    },
    parentOf(call, carried.context),
  )
  if (span === undefined) return undefined
  // Samplers see what there is few of. Attributes at the start cost several times as much.
  if (span.isRecording) span.set(callAttributes(call))
  return { span, attemptTrace: { type: event.type, processed: span.spanContext, created } }
}

function callAttributes({ event, attempt, replayId }: HandlerCall): Attributes {
  const attributes = eventAttributes(event)
  attributes[spanAttributeNames.messageId] = event.id
  attributes[spanAttributeNames.attempt] = attempt
  if (replayId !== undefined) attributes[spanAttributeNames.replay] = replayId
  return attributes
}

/** Has the baggage of the event in any case. */
function parentOf({ event, attempt, replayId }: HandlerCall, carried: Context): Context {
  const around = trace.getSpan(activeContext())
  if (around !== undefined) return trace.setSpan(carried, around)
  const isLive = attempt === 1 && replayId === undefined
  const isYoung = Date.now() - event.createdAt.getTime() < maxParentAgeMs
  return isLive && isYoung ? carried : trace.deleteSpan(carried)
}
