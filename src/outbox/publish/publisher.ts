import type { EventCatalogue } from '../../events/catalogue.ts'
import type { EventMetadata, NewEvent, Published } from '../../events/envelope.ts'
import { withDefaults } from '../../events/event-defaults.ts'
import { limits } from '../../foundation/limits.ts'
import { describe, refuseUnknownKeys, invalidOption } from '../../foundation/options.ts'
import { isThenable } from '../../foundation/cross-realm.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { CallerTransaction } from '../transactions/caller-transaction.ts'

/** Values for fields that an event does not set itself; of `metadata`, the entries that it does not set. */
export interface EventDefaults {
  readonly tenantId?: string | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  readonly subject?: string | undefined
  readonly metadata?: EventMetadata | undefined
}

/** Defaults, or a function that is called for each publish, such as `() => requestContext.getStore()`. */
export type DefaultsOption<D extends EventDefaults | undefined = EventDefaults | undefined> = D | (() => D)

/** The required fields that events may omit with defaults of type `D`. */
export type DefaultedBy<D> = [D] extends [{ readonly tenantId: string }] ? 'tenantId' : never

/**
 * Publishes events. The bus, `request.bus` of the Fastify plugin, and the context of a handler are publishers. A
 * function that publishes some types takes a `Publisher` of these types, and accepts any bus that has them.
 *
 * @example
 * ```ts
 * async function markPaid(tx: BusTransaction, publisher: Publisher<typeof paymentEvents>, payment: Payment): Promise<void> {
 *   await tx.insert(payments).values(payment)
 *   const payload = { paymentId: payment.id, amountCents: payment.amountCents }
 *   await publisher.publish(tx, { type: 'payment.paid', tenantId: payment.tenantId, payload })
 * }
 *
 * await db.transaction(async (tx) => markPaid(tx, bus, { id: '42', tenantId: 'acme', amountCents: 4200 }))
 * ```
 * @typeParam C - the catalogue of the events that it publishes
 * @typeParam Defaulted - `'tenantId'` if events may omit their tenant
 */
export type Publisher<
  C extends EventCatalogue = EventCatalogue,
  Defaulted extends 'tenantId' = never,
> = EventPublisher<NewEvent<C, Defaulted>, NewEvent<C, 'tenantId'>>

/**
 * A {@link Publisher}, parameterised by its events. Through these, not through its catalogue, the compiler recognises
 * that a publisher of many types is a publisher of some of them.
 *
 * @typeParam E - an event to publish
 * @typeParam Tenantless - the same event without its tenant
 */
export interface EventPublisher<E, Tenantless> {
  /**
   * Publishes in the caller's transaction: the event is stored if and only if the transaction commits. One round trip.
   * A duplicate, by `eventId` or `idempotencyKey` of the tenant, writes nothing and resolves to the id of the first
   * event. Use the handle of a savepoint only inside its callback: after the savepoint was rolled back, that handle
   * publishes into the outer transaction.
   * @throws an {@link InvalidEventError} before anything is written; {@link TransactionError}; {@link DatabaseError}
   */
  readonly publish: (tx: CallerTransaction, event: E) => Promise<Published>
  /** Publishes 1 to 10,000 events in one statement: all or none, in the given order. */
  readonly publishMany: (tx: CallerTransaction, events: readonly E[]) => Promise<Published[]>
  /**
   * Publishes in a transaction of its own and never throws: for events that business code must not fail over. A failure
   * is logged, counted, and resolves to undefined. It gives up after 5 seconds; the event may still be stored then.
   */
  readonly tryPublish: (event: E) => Promise<Published | undefined>
  /**
   * Returns a publisher with defaults: an object, or a function that is called for each publish. An event's own fields
   * take precedence, then the defaults nearest to it.
   *
   * @example
   * ```ts
   * const requestContext = new AsyncLocalStorage<{ tenantId: string }>()
   * const publisher = bus.with(() => requestContext.getStore())
   * ```
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`: at once for an invalid object; from publish for a
   *   function that throws or returns an invalid value
   */
  readonly with: <const D extends EventDefaults | undefined>(
    defaults: DefaultsOption<D>,
  ) => EventPublisher<[DefaultedBy<D>] extends [never] ? E : Tenantless, Tenantless>
}

/** The functions that a publisher wraps: they take events of any type, with the defaults applied. */
type Publishing = Pick<Publisher<never>, 'publish' | 'publishMany' | 'tryPublish'>

const defaultNames: readonly (keyof EventDefaults)[] = [
  'tenantId',
  'correlationId',
  'causationId',
  'subject',
  'metadata',
]

/**
 * Creates a publisher that applies defaults and forwards events.
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function createPublisher<C extends EventCatalogue, Defaulted extends 'tenantId'>(
  onto: Pick<Publisher<C>, 'publish' | 'publishMany' | 'tryPublish'>,
  defaults: unknown,
  tryFailed: (event: unknown, error: unknown) => undefined,
): Publisher<C, Defaulted> {
  const next = onto as unknown as Publishing
  const defaultsNow = resolveDefaults(defaults)
  const fill = (event: unknown): never => filled(event, defaultsNow()) as never

  const publisher: Publisher = {
    publish: async (tx, event) => next.publish(tx, fill(event)),
    async publishMany(tx, events) {
      const current = defaultsNow()
      return next.publishMany(tx, fillAll(events, current) as never)
    },
    async tryPublish(event) {
      let complete: never
      try {
        complete = fill(event)
      } catch (error) {
        return tryFailed(event, error)
      }
      return next.tryPublish(complete)
    },
    with: (more) => createPublisher(publisher, more, tryFailed),
  }
  return Object.freeze(publisher) as unknown as Publisher<C, Defaulted>
}

/** Without defaults events are not copied; most buses have none. */
const noDefaults: EventDefaults = Object.freeze({})

function filled(event: unknown, defaults: EventDefaults): unknown {
  return defaults === noDefaults ? event : withDefaults(event, defaults)
}

/** A value that is not an array, or too long, is passed through for publish to refuse. */
function fillAll(events: unknown, defaults: EventDefaults): unknown {
  try {
    return defaults !== noDefaults && Array.isArray(events) && events.length <= limits.callEventCount
      ? events.map((event: unknown) => withDefaults(event, defaults))
      : events
  } catch {
    return events
  }
}

/**
 * Returns a function that resolves the defaults for each publish.
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
function resolveDefaults(given: unknown): () => EventDefaults {
  if (typeof given !== 'function') {
    const defaults = checkDefaults(given)
    return () => defaults
  }
  return () => {
    let returned: unknown
    try {
      returned = (given as () => unknown)()
    } catch (error) {
      throw invalidOption(`The function \`defaults\` threw: ${reasonOf(error)}`)
    }
    return checkDefaults(returned)
  }
}

/** A frozen copy. Its values are validated with the event. */
function checkDefaults(given: unknown): EventDefaults {
  if (given === undefined) return noDefaults
  if (given === null || typeof given !== 'object' || Array.isArray(given) || isThenable(given)) {
    if (isThenable(given)) given.then(undefined, () => {})
    throw invalidOption(
      `Expected \`defaults\` to be an object like { tenantId, correlationId }, or a function that returns one, got ${isThenable(given) ? 'a promise' : describe(given)}`,
      'defaults',
    )
  }
  refuseUnknownKeys(given, defaultNames, '`defaults`')
  return Object.freeze({ ...given })
}
