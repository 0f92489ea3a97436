import type { EventCatalogue, EventType, PayloadOutput } from '../events/catalogue.ts'
import type { Published } from '../events/envelope.ts'
import { describe, invalidOption, refuseUnknownKeys } from '../foundation/options.ts'

/** A part of a payload: some keys of an object, some items of a list. */
export type PayloadPart<P> = P extends readonly (infer I)[]
  ? readonly PayloadPart<I>[]
  : P extends object
    ? { readonly [K in keyof P]?: PayloadPart<P[K]> }
    : P

/** Selects the events that have all of these properties. */
export interface EventMatcher<
  C extends EventCatalogue = EventCatalogue,
  T extends EventType<C> = EventType<C>,
> {
  readonly type?: T | undefined
  readonly tenantId?: string | undefined
  /** A part of the payload, like `@>` of PostgreSQL's jsonb: `{ paymentId: '42' }` matches whatever else the payload contains. */
  readonly payload?: PayloadPart<PayloadOutput<C, T>> | undefined
  readonly eventId?: string | undefined
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  readonly orderingKey?: string | undefined
}

/** An event, identified by its id, by the result of publish or tryPublish, or by a matcher. */
export type EventReference<C extends EventCatalogue = EventCatalogue, T extends EventType<C> = EventType<C>> =
  string | Published | EventMatcher<C, T> | undefined

/** A condition on rows of bus.events, and its parameters. */
export interface EventCondition {
  readonly sql: string
  readonly values: readonly unknown[]
  /** Its description in an error. */
  readonly text: string
  /** Whether it can match at most one event. */
  readonly isOne: boolean
}

const columns = {
  type: 'type',
  tenantId: 'tenant_id',
  eventId: 'event_id',
  correlationId: 'correlation_id',
  causationId: 'causation_id',
  orderingKey: 'ordering_key',
} as const

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function toCondition(reference: unknown): EventCondition {
  if (typeof reference === 'string') return byId(reference)
  if (reference === undefined)
    throw invalidOption(
      'Expected an event, got undefined: tryPublish resolves to undefined if it fails. Pass a `logger` to the bus to the bus to see why, or use publish, which throws',
    )
  if (reference === null || typeof reference !== 'object')
    throw invalidOption(
      `Expected an event: an id or a matcher like { type, payload }, got ${describe(reference)}`,
    )
  if ('id' in reference && 'duplicate' in reference) return byId(String(reference.id))
  refuseUnknownKeys(reference, [...Object.keys(columns), 'payload'], 'an event matcher')
  const values: unknown[] = []
  const conditions = ['true']
  for (const [key, column] of Object.entries(columns)) {
    const value = (reference as Record<string, unknown>)[key]
    if (value === undefined) continue
    values.push(value)
    conditions.push(`${column}::text = $${values.length}`)
  }
  const { payload } = reference as EventMatcher
  if (payload !== undefined) {
    values.push(JSON.stringify(payload))
    conditions.push(`payload @> $${values.length}::jsonb`)
  }
  return {
    sql: conditions.join(' and '),
    values,
    text: `an event like ${JSON.stringify(reference)}`,
    isOne: false,
  }
}

function byId(id: string): EventCondition {
  return { sql: 'id::text = $1', values: [id], text: `the event ${id}`, isOne: true }
}
