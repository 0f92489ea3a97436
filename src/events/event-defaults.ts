import type { EventFields, EventMetadata } from './envelope.ts'

/** Every field that an event given to publish may have. */
export const eventFieldNames: readonly (keyof EventFields | 'type' | 'payload')[] = [
  'type',
  'payload',
  'tenantId',
  'eventId',
  'idempotencyKey',
  'correlationId',
  'causationId',
  'orderingKey',
  'subject',
  'availableAt',
  'availableIn',
  'expiresAt',
  'metadata',
]

/**
 * The event with some fields filled in where it has none, and entries of `metadata`: a copy with all that publish reads, inherited
 * fields and getters of a class too, and with what it must not have, for publish to refuse. What cannot be read is given on as it
 * is: publish has the error for it.
 */
export function withDefaults<E>(
  event: E,
  defaults: { readonly [K in keyof EventFields]?: EventFields[K] | undefined },
): E {
  try {
    if (event === null || typeof event !== 'object' || Array.isArray(event)) return event
    const given = event as Readonly<Record<string, unknown>>
    const copy: Record<string, unknown> = { ...given }
    for (const name of eventFieldNames) {
      const value = (Object.hasOwn(copy, name) ? copy : given)[name]
      if (name === 'metadata' && value !== undefined) copy[name] = withEntries(value, defaults.metadata)
      else if (value !== undefined) copy[name] = value
      else if (Object.hasOwn(defaults, name)) copy[name] = defaults[name as keyof EventFields]
    }
    return copy as E
  } catch {
    return event
  }
}

/** What is no object of entries is left to publish to refuse. */
function withEntries(given: unknown, defaults: EventMetadata | undefined): unknown {
  if (defaults === undefined || given === null || typeof given !== 'object' || Array.isArray(given))
    return given
  return { ...defaults, ...given }
}
