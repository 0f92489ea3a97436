import type { Bus } from '../bus.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import { firstCharacters } from '../events/characters.ts'
import { withDefaults } from '../events/event-defaults.ts'
import { textProblem } from '../events/json.ts'
import { limits } from '../events/limits.ts'

/** The bus as one request sees it: what it publishes carries the request's id as its correlation id. */
export type RequestBus<C extends EventCatalogue = EventCatalogue> = Pick<
  Bus<C>,
  'publish' | 'publishMany' | 'tryPublish'
>

/** Publishes through `bus`, filling in the correlation id of events that have none of their own. */
export function createRequestBus<C extends EventCatalogue>(
  bus: RequestBus<C>,
  requestId: unknown,
): RequestBus<C> {
  const correlationId = toCorrelationId(requestId)

  function correlate<E>(event: E): E {
    return correlationId === undefined ? event : withDefaults(event, { correlationId })
  }

  /** What is no array, or too long a one, is the bus's to refuse. */
  function correlateAll<E>(events: readonly E[]): readonly E[] {
    try {
      return events.length <= limits.callEventCount ? events.map(correlate) : events
    } catch {
      return events
    }
  }

  return {
    publish: async (tx, event) => bus.publish(tx, correlate(event)),
    publishMany: async (tx, events) => bus.publishMany(tx, correlateAll(events)),
    tryPublish: async (event) => bus.tryPublish(correlate(event)),
  }
}

/**
 * A request's id may come from a header, so from anybody: one that is too long is cut, one that PostgreSQL cannot
 * store is left out. It must not decide whether a business transaction commits.
 */
function toCorrelationId(requestId: unknown): string | undefined {
  if (typeof requestId !== 'string' && typeof requestId !== 'number') return undefined
  const text = firstCharacters(String(requestId), limits.keyLength)
  return text === '' || textProblem(text) !== undefined ? undefined : text
}
