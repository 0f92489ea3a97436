import type { EventCatalogue } from '../../events/catalogue.ts'
import type { EventMetadata, Published } from '../../events/envelope.ts'
import { errorTypeOf } from '../../foundation/error-type.ts'
import type { PublishSpan } from '../../telemetry/publish-spans.ts'
import { tellOperation } from '../../telemetry/tell-operation.ts'
import type { Telemetry } from '../../telemetry/telemetry.ts'
import { withoutBaggage } from '../../telemetry/trace-context.ts'
import { encodeMetadata, type PassedEvent } from './check-events.ts'
import { toColumns, type EventColumns } from './publish.ts'

/** Writes columns of events to the database. */
export type WriteEvents = (columns: EventColumns) => Promise<Published[]>

/**
 * Writes valid events, and tells of it: the call has a span, whose context goes into the metadata of the events, and is counted and measured.
 *
 * @param isBatch - of publishMany
 */
export async function sendEvents(
  { spans, recorder }: Telemetry,
  events: readonly PassedEvent[],
  isBatch: boolean,
  write: WriteEvents,
): Promise<Published[]> {
  const span = spans.isOn
    ? spans.publish(
        events.map(({ event }) => event),
        isBatch,
      )
    : undefined
  const encoded = events.map(({ columns }) => columns)
  if (span === undefined && !recorder.isOn) return write(toColumns(encoded))
  const counts = countsByType(events)
  const type = counts.size === 1 ? events[0]?.event.type : undefined
  return tellOperation(
    recorder,
    { operation: 'publish', type },
    span,
    async () => write(toColumns(encoded, span && metadataWithContext(events, span))),
    (errorType) => {
      for (const [each, count] of counts) recorder.sent(each, count, errorType)
    },
  )
}

function countsByType(events: readonly PassedEvent[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const { event } of events) counts.set(event.type, (counts.get(event.type) ?? 0) + 1)
  return counts
}

/**
 * Most that the trace context may add to one call. A `traceparent` always fits; baggage of kilobytes, ten thousand times, does not.
 */
const maxContextBytes = 4_194_304

/** The metadata of events, with the context of their span as far as it fits. Nothing that the caller gave is replaced. */
function metadataWithContext(
  events: readonly PassedEvent[],
  span: PublishSpan,
): readonly (string | undefined)[] {
  let known: EventMetadata | undefined
  let text: string | undefined
  return events.map(({ event, columns: { metadata } }, index) => {
    const context = span.contextFor(index)
    if (context === undefined) return metadata
    const added = fitting(context, events.length)
    if (event.metadata !== undefined) return merged(added, event.metadata, metadata)
    // The events of a call have one context, unless each has a span of its own.
    if (context !== known) {
      known = context
      text = encodeOr(undefined, added)
    }
    return text
  })
}

function fitting(context: EventMetadata, eventCount: number): EventMetadata {
  const { baggage } = context
  if (baggage === undefined || baggage.length * eventCount <= maxContextBytes) return context
  return withoutBaggage(context) ?? {}
}

/** @param encoded - what the caller gave, which is left as it is where nothing more fits */
function merged(
  context: EventMetadata,
  given: EventMetadata,
  encoded: string | undefined,
): string | undefined {
  const least = context['baggage'] === undefined ? encoded : encodeOr(encoded, withoutBaggage(context), given)
  return encodeOr(least, context, given)
}

/** The first text where both together are more than an event may have, or a propagator wrote what PostgreSQL cannot store. */
function encodeOr(
  otherwise: string | undefined,
  context: EventMetadata | undefined,
  given?: EventMetadata,
): string | undefined {
  try {
    return encodeMetadata({ ...context, ...given })
  } catch {
    return otherwise
  }
}

/** Tells of events that were refused before they were sent. Never throws, whatever the events do. */
export function tellRefused(
  { spans, recorder }: Telemetry,
  catalogue: EventCatalogue,
  newEvents: unknown,
  seconds: number,
  thrown: unknown,
): void {
  if (!spans.isOn && !recorder.isOn) return
  const type = knownTypeOf(catalogue, newEvents)
  const errorType = errorTypeOf(thrown)
  recorder.operation('publish', type, undefined, seconds, errorType)
  spans.refuse(type, thrown, errorType)
}

/** The type of a single event, if it is in the catalogue. */
function knownTypeOf(catalogue: EventCatalogue, newEvents: unknown): string | undefined {
  try {
    const [only, ...others] = newEvents as readonly { readonly type?: unknown }[]
    const type = others.length === 0 ? only?.type : undefined
    return typeof type === 'string' && Object.hasOwn(catalogue, type) ? type : undefined
  } catch {
    return undefined
  }
}
