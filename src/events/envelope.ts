import type { EventCatalogue, EventType, PayloadInput, PayloadOutput } from './catalogue.ts'

/** What travels beside the payload: `traceparent` and headers of the user's own. Text values only. */
export type EventMetadata = Readonly<Record<string, string>>

/** An event as publish takes it, but for `type`, `payload` and `tenantId`. */
export interface OptionalEventFields {
  /**
   * The business id. A second event of the tenant with the same one is a duplicate, also of another type: give each type of
   * an order an id of its own, such as `placed-42` and `paid-42`. Up to 255 characters.
   */
  readonly eventId?: string | undefined
  /** A second publish of the tenant with the same key is a duplicate. Up to 255 characters. */
  readonly idempotencyKey?: string | undefined
  /** Ties events of one business process together. Up to 255 characters. */
  readonly correlationId?: string | undefined
  /** The id of the event that led to this one. */
  readonly causationId?: string | undefined
  /** Events of one key keep their order in ordered subscriptions. Up to 255 characters. */
  readonly orderingKey?: string | undefined
  /** What the event is about, such as `payments/42`. Up to 1,024 characters. */
  readonly subject?: string | undefined
  /** Not handed to subscribers before this time, by the database's clock. Left out, or past: at once. */
  readonly availableAt?: Date | undefined
  /** The same, counted from now by the database's clock: `{ seconds: 60 }`, up to ten years. Not beside `availableAt`. */
  readonly availableIn?: { readonly seconds: number } | undefined
  /**
   * Not delivered after this time, by the database's clock: a subscription that has not delivered it by then records
   * it as expired, also between two attempts. An attempt that began before goes on. After `availableAt`, if both.
   */
  readonly expiresAt?: Date | undefined
  /** Text values by name, up to 16 KiB in all. */
  readonly metadata?: EventMetadata | undefined
}

/** An event as publish takes it, but for `type` and `payload`. */
export interface EventFields extends OptionalEventFields {
  /** Whose event it is, 1 to 255 characters. Keys, order and turns are kept for each tenant apart. */
  readonly tenantId: string
}

/** The fields of an event whose publisher may know the tenant. */
type EventFieldsBeside<Defaulted extends 'tenantId'> = 'tenantId' extends Defaulted
  ? OptionalEventFields & { readonly tenantId?: string | undefined }
  : EventFields

/**
 * An event to publish: one member of the union for each type of the catalogue.
 *
 * @typeParam Defaulted - `'tenantId'` where the publisher knows the tenant, so that the event need not say it
 */
export type NewEvent<C extends EventCatalogue, Defaulted extends 'tenantId' = never> = {
  [T in EventType<C>]: EventFieldsBeside<Defaulted> & {
    readonly type: T
    readonly payload: PayloadInput<C, T>
  }
}[EventType<C>]

/** What publish resolves to. */
export interface Published {
  /** The id of the stored event: a uuid v7. For a duplicate, the id of the first one. */
  readonly id: string
  /** True when an event with the same `eventId` or `idempotencyKey` was there already and nothing was written. */
  readonly duplicate: boolean
}

/** An event as it was stored. */
export interface StoredEvent<T extends string = string, P = unknown> {
  /** uuid v7, ordered by time of publish. */
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
  /** Not delivered after this time. */
  readonly expiresAt: Date | undefined
  /** The database's clock at the insert. */
  readonly createdAt: Date
}

/** The stored events of some types of a catalogue: a union that `type` tells apart. */
export type EventOf<C extends EventCatalogue, T extends EventType<C>> = {
  [K in T]: StoredEvent<K, PayloadOutput<C, K>>
}[T]
