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

/**
 * Returns a function that says whether metadata say where their event was created, in a field of the propagators of the SDK. Then nothing is
 * added to them.
 */
export function creationContextFinder(): (metadata: EventMetadata | undefined) => boolean {
  let fields: readonly string[] | undefined
  return (metadata) => {
    if (metadata === undefined) return false
    fields ??= propagation.fields().filter((field) => field !== baggageField)
    return fields.some((field) => Object.hasOwn(metadata, field))
  }
}

/** What the metadata of an event carry. */
export interface CarriedContext {
  /** The span that created the event, and its baggage. */
  readonly context: Context
  /** The span that created the event, where metadata have it. */
  readonly created: SpanContext | undefined
}

/**
 * Returns a function that reads the context in metadata. It keeps the latest answer, because the events of a call of publish follow each other
 * and carry the same.
 */
export function createContextReader(): (metadata: EventMetadata) => CarriedContext {
  let known: { readonly metadata: EventMetadata; readonly carried: CarriedContext } | undefined
  return (metadata) => {
    if (known !== undefined && isSame(metadata, known.metadata)) return known.carried
    const extracted = extractContext(metadata)
    const carried = { context: extracted, created: creationContextIn(extracted) }
    // A copy, because the handler of the event has the metadata in its hands.
    known = { metadata: { ...metadata }, carried }
    return carried
  }
}

function isSame(a: EventMetadata, b: EventMetadata): boolean {
  const names = Object.keys(a)
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name])
}

function extractContext(metadata: EventMetadata): Context {
  try {
    return propagation.extract(ROOT_CONTEXT, metadata)
  } catch {
    return ROOT_CONTEXT
  }
}

function creationContextIn(carried: Context): SpanContext | undefined {
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
