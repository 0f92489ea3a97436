import { randomUUID } from 'node:crypto'
import { idPrefix } from '../events/event-id.ts'
import type { EventCatalogue, EventType } from '../events/catalogue.ts'
import type { EventOf, Published, StoredEvent } from '../events/envelope.ts'
import { assertObject, describe, invalidOption, refuseUnknownKeys } from '../foundation/options.ts'
import { limits } from '../foundation/limits.ts'
import { parseJson } from '../events/json/parse-json.ts'
import {
  createPublisher,
  type DefaultedBy,
  type DefaultsOption,
  type EventDefaults,
  type Publisher,
} from '../outbox/publish/publisher.ts'
import { checkEvents, type UncheckedEvent } from '../outbox/publish/check-events.ts'

/** Options of {@link createFakePublisher} besides the catalogue. */
export interface FakePublisherOptions<E extends EventDefaults | undefined = EventDefaults | undefined> {
  /** The service that publishes: types whose `sources` lack it are refused. @defaultValue `'test'` */
  readonly source?: string | undefined
  /** As in `createBus`. */
  readonly defaults?: DefaultsOption<E> | undefined
}

/** A publisher without a database, and the events that were published through it. */
export type FakePublisher<
  C extends EventCatalogue = EventCatalogue,
  Defaulted extends 'tenantId' = never,
> = Publisher<C, Defaulted> & {
  /** All published events in order, without duplicates. */
  readonly published: readonly EventOf<C, EventType<C>>[]
}

/**
 * A publisher for tests of code that takes a `Publisher`. It validates events like a bus, with their schemas, and keeps
 * them. It accepts any value as a transaction, and ignores whether the transaction commits. An event whose `eventId` or
 * `idempotencyKey` the tenant has used before is a duplicate. `tryPublish` resolves to undefined for an event that it
 * cannot publish.
 *
 * @example
 * ```ts
 * import assert from 'node:assert/strict'
 *
 * const publisher = createFakePublisher(events)
 * await publisher.tryPublish({ type: 'payment.paid', tenantId: 'acme', payload: { paymentId: '42', amountCents: 4200 } })
 * assert.equal(publisher.published.length, 1)
 * ```
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; from publish {@link InvalidEventError}
 */
export function createFakePublisher<
  const C extends EventCatalogue,
  const E extends EventDefaults | undefined = undefined,
>(events: C, options: FakePublisherOptions<E> = {}): FakePublisher<C, DefaultedBy<E>> {
  assertObject('the catalogue made by defineEvents', events)
  assertObject('options like { source, defaults }', options)
  refuseUnknownKeys(options, ['source', 'defaults'], 'createFakePublisher')
  const { source = 'test', defaults } = options
  if (typeof source !== 'string' || source === '')
    throw invalidOption(`Expected \`source\` to be the name of a service, got ${describe(source)}`, 'source')
  const settings = { catalogue: events, source, maxPayloadBytes: limits.payloadBytes.max }
  const published: StoredEvent[] = []
  const known = new Map<string, string>()

  async function publishMany(_tx: unknown, given: readonly UncheckedEvent[]): Promise<Published[]> {
    const checked = await checkEvents(settings, given)
    return checked.map(({ event, payload, schemaVersion }) => {
      const keys = [
        ['event', event.eventId],
        ['key', event.idempotencyKey],
      ].flatMap(([kind, key]) => (key === undefined ? [] : [JSON.stringify([kind, event.tenantId, key])]))
      const first = keys.map((key) => known.get(key)).find((id) => id !== undefined)
      if (first !== undefined) return { id: first, duplicate: true }
      const stored = toStored(event, payload, schemaVersion, source)
      for (const key of keys) known.set(key, stored.id)
      published.push(stored)
      return { id: stored.id, duplicate: false }
    })
  }

  const publisher = createPublisher<C, DefaultedBy<E>>(
    {
      publish: async (tx, event) => {
        const [only] = await publishMany(tx, [event])
        return only as Published
      },
      publishMany,
      tryPublish: async (event) => {
        const all = await publishMany(undefined, [event]).catch(() => [])
        return all[0]
      },
    },
    defaults,
    () => undefined,
  )
  return Object.freeze({ ...publisher, published: published as never })
}

/** An event as a bus would have stored it. */
export function toStored(
  event: UncheckedEvent,
  payloadText: string,
  schemaVersion: number,
  source: string,
): StoredEvent {
  const { type, subject, tenantId, eventId, idempotencyKey, correlationId, causationId, orderingKey } = event
  return Object.freeze({
    ...{ id: newId(), type, source, subject, tenantId, payload: parseJson(payloadText), schemaVersion },
    ...{ eventId, idempotencyKey, correlationId, causationId, orderingKey },
    metadata: { ...event.metadata },
    expiresAt: event.expiresAt,
    createdAt: new Date(),
  })
}

/** A uuid v7. */
function newId(): string {
  return `${idPrefix(Date.now())}-7${randomUUID().slice(15)}`
}
