import type { EventCatalogue, EventType, PayloadInput, PayloadOutput } from './catalogue.ts'

/** Data that travels beside the payload, such as `traceparent` or your own headers. String values only. */
export type EventMetadata = Readonly<Record<string, string>>

/** The optional fields of an event that is published. */
export interface OptionalEventFields {
  /**
   * The business id. A second event of the tenant with the same id is a duplicate, even if its type differs: give each
   * type of an order its own id, such as `placed-42` and `paid-42`. Up to 255 characters.
   */
  readonly eventId?: string | undefined
  /** A second publish of the tenant with the same key is a duplicate. Up to 255 characters. */
  readonly idempotencyKey?: string | undefined
  /** Groups the events of one business process. Up to 255 characters. */
  readonly correlationId?: string | undefined
  /** The id of the event that caused this one. */
  readonly causationId?: string | undefined
  /** Ordered subscriptions handle events with the same key in order. Up to 255 characters. */
  readonly orderingKey?: string | undefined
  /** The thing that the event is about, such as `payments/42`. Up to 1,024 characters. */
  readonly subject?: string | undefined
  /** The event is not delivered before this time, by the database's clock. If omitted or past: immediately. */
  readonly availableAt?: Date | undefined
  /**
   * The same as a delay from now, by the database's clock: `{ seconds: 60 }`, up to ten years. Cannot be combined with
   * `availableAt`.
   */
  readonly availableIn?: { readonly seconds: number } | undefined
  /**
   * The event is not delivered after this time, by the database's clock. A subscription that has not delivered it by
   * then records it as expired, even between two attempts. An attempt that has already started continues. Must be later
   * than `availableAt` if both are given.
   */
  readonly expiresAt?: Date | undefined
  /** String values by name, up to 16 KiB in total. */
  readonly metadata?: EventMetadata | undefined
}

/** The fields of an event besides `type` and `payload`. */
export interface EventFields extends OptionalEventFields {
  /** The tenant that owns the event, 1 to 255 characters. Duplicate keys, ordering and fairness are separate for each tenant. */
  readonly tenantId: string
}

/** The fields of an event if its publisher may supply the tenant. */
type EventFieldsBeside<Defaulted extends 'tenantId'> = 'tenantId' extends Defaulted
  ? OptionalEventFields & { readonly tenantId?: string | undefined }
  : EventFields

/**
 * An event to publish: a union with one member for each type of the catalogue.
 *
 * @typeParam Defaulted - `'tenantId'` if the publisher supplies the tenant, so that the event may omit it
 */
export type NewEvent<C extends EventCatalogue, Defaulted extends 'tenantId' = never> = {
  [T in EventType<C>]: EventFieldsBeside<Defaulted> & {
    readonly type: T
    readonly payload: PayloadInput<C, T>
  }
}[EventType<C>]

/** The result of publish. */
export interface Published {
  /** The id of the stored event, a uuid v7. For a duplicate: the id of the first event. */
  readonly id: string
  /** True if an event with the same `eventId` or `idempotencyKey` already existed. Nothing was written then. */
  readonly duplicate: boolean
}

/** An event as it was stored. */
export interface StoredEvent<T extends string = string, P = unknown> {
  /** A uuid v7, ordered by publish time. */
  readonly id: string
  readonly type: T
  /** The service that published it. */
  readonly source: string
  readonly subject: string | undefined
  readonly tenantId: string
  readonly payload: P
  /** The version of the payload's shape, after upcasting. */
  readonly schemaVersion: number
  readonly eventId: string | undefined
  readonly idempotencyKey: string | undefined
  readonly correlationId: string | undefined
  readonly causationId: string | undefined
  readonly orderingKey: string | undefined
  readonly metadata: EventMetadata
  /** The event is not delivered after this time. */
  readonly expiresAt: Date | undefined
  /** The database's clock when the event was inserted. */
  readonly createdAt: Date
}

/** The stored events of some types of a catalogue: a union discriminated by `type`. */
export type EventOf<C extends EventCatalogue, T extends EventType<C>> = {
  [K in T]: StoredEvent<K, PayloadOutput<C, K>>
}[T]
