import {
  context,
  isSpanContextValid,
  propagation,
  ROOT_CONTEXT,
  trace,
  type Context,
  type SpanContext,
} from '@opentelemetry/api'
import type { EventMetadata } from '../events/envelope.ts'

/** The header of the baggage, which says nothing about where an event was created. */
const baggageField = 'baggage'

/** A context as entries of metadata, as the propagators of the SDK write it: `traceparent`, `tracestate`, `baggage`. */
export function injectContext(active: Context): EventMetadata | undefined {
  try {
    const carrier: Record<string, string> = {}
    propagation.inject(active, carrier)
    return Object.values(carrier).some((value) => typeof value !== 'string') ||
      Object.keys(carrier).length === 0
      ? undefined
      : carrier
  } catch {
    return undefined
  }
}

/** The same without the baggage; undefined where nothing is left. */
export function withoutBaggage(carrier: EventMetadata): EventMetadata | undefined {
  const { [baggageField]: _, ...rest } = carrier
  return Object.keys(rest).length === 0 ? undefined : rest
}

/** Whether metadata say where their event was created, in a field of the propagators of the SDK. Then nothing is added to them. */
export function hasCreationContext(metadata: EventMetadata | undefined): boolean {
  if (metadata === undefined) return false
  return propagation.fields().some((field) => field !== baggageField && Object.hasOwn(metadata, field))
}

/** The context that metadata carry: the span that created the event, and its baggage. */
export function extractContext(metadata: EventMetadata): Context {
  try {
    return propagation.extract(ROOT_CONTEXT, metadata)
  } catch {
    return ROOT_CONTEXT
  }
}

/** The context of the span that created an event, where metadata have it. */
export function creationContextIn(carried: Context): SpanContext | undefined {
  const spanContext = trace.getSpanContext(carried)
  return spanContext !== undefined && isSpanContextValid(spanContext) ? spanContext : undefined
}

/** The context of the caller. */
export function activeContext(): Context {
  try {
    return context.active()
  } catch {
    return ROOT_CONTEXT
  }
}
