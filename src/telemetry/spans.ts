import { SpanKind, type Tracer } from '@opentelemetry/api'
import type { EventMetadata } from '../events/envelope.ts'
import { operationAttributes, spanAttributeNames, spanName, type ServerAddress } from './attributes.ts'
import { GuardedSpan } from './guarded-span.ts'
import { startProcessSpan, type AttemptTrace, type HandlerCall, type ProcessSpan } from './process-spans.ts'
import { startPublishSpan, type OutgoingEvent, type PublishSpan } from './publish-spans.ts'
import { startSettleSpan } from './settle-spans.ts'
import { activeContext, createContextReader, type CarriedContext } from './trace-context.ts'
import { createTracerSource } from './tracer.ts'

/**
 * The spans of a bus. Every function returns undefined, and does nothing else, while no SDK is registered. None throws, whatever the SDK
 * does.
 */
export interface Spans {
  /** Whether an SDK is registered now. */
  readonly isOn: boolean
  /** @param isBatch - of publishMany */
  publish: (events: readonly OutgoingEvent[], isBatch: boolean) => PublishSpan | undefined
  /** The span of a call of publish that was refused before anything was sent. */
  refuse: (type: string | undefined, thrown: unknown, errorType: string) => void
  cancel: (id: string | undefined) => GuardedSpan | undefined
  process: (call: HandlerCall) => ProcessSpan | undefined
  settle: (subscription: string, attempts: readonly (AttemptTrace | undefined)[]) => GuardedSpan | undefined
}

export const noSpans: Spans = {
  isOn: false,
  publish: () => undefined,
  refuse() {},
  cancel: () => undefined,
  process: () => undefined,
  settle: () => undefined,
}

/** @param serverNow - the database server, as far as it is known */
export function createSpans(
  createSpansOfEvents: boolean,
  serverNow: () => ServerAddress | undefined = () => undefined,
): Spans {
  const tracerNow = createTracerSource()
  let reader:
    { readonly tracer: Tracer; readonly read: (metadata: EventMetadata) => CarriedContext } | undefined

  /** Another SDK may read metadata in another way. */
  function carriedBy(metadata: EventMetadata, tracer: Tracer): CarriedContext {
    if (reader?.tracer !== tracer) reader = { tracer, read: createContextReader() }
    return reader.read(metadata)
  }

  return {
    get isOn() {
      return tracerNow() !== undefined
    },
    publish(events, isBatch) {
      const tracer = tracerNow()
      if (tracer === undefined) return undefined
      try {
        return startPublishSpan(tracer, events, isBatch, {
          createSpans: createSpansOfEvents,
          server: serverNow(),
        })
      } catch {
        return undefined
      }
    },
    refuse(type, thrown, errorType) {
      const tracer = tracerNow()
      if (tracer === undefined) return
      const attributes = operationAttributes('publish', type, undefined)
      GuardedSpan.start(
        tracer,
        spanName('publish', type),
        { kind: SpanKind.PRODUCER, attributes },
        activeContext(),
      )?.fail(thrown, errorType)
    },
    cancel(id) {
      const tracer = tracerNow()
      if (tracer === undefined) return undefined
      const attributes = operationAttributes('cancel', undefined, undefined, serverNow())
      const options = { kind: SpanKind.CLIENT, attributes }
      const span = GuardedSpan.start(tracer, spanName('cancel', undefined), options, activeContext())
      if (id !== undefined) span?.set({ [spanAttributeNames.messageId]: id })
      return span
    },
    process(call) {
      const tracer = tracerNow()
      if (tracer === undefined) return undefined
      try {
        return startProcessSpan(tracer, call, carriedBy(call.event.metadata, tracer))
      } catch {
        return undefined
      }
    },
    settle(subscription, attempts) {
      const tracer = tracerNow()
      if (tracer === undefined) return undefined
      try {
        return startSettleSpan(tracer, subscription, attempts, serverNow())
      } catch {
        return undefined
      }
    },
  }
}
