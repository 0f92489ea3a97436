import type { EventFields, EventMetadata } from './envelope.ts'

/** Every field that an event passed to publish may have. */
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
 * Fills in missing fields, and missing entries of `metadata`. Returns a copy with every field that publish reads,
 * including inherited fields and getters of a class, and with unknown fields, which publish refuses. An event that
 * cannot be read is returned unchanged, so that publish reports the error.
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

/** A value that is not an object is passed through for publish to refuse. */
function withEntries(given: unknown, defaults: EventMetadata | undefined): unknown {
  if (defaults === undefined || given === null || typeof given !== 'object' || Array.isArray(given))
    return given
  return { ...defaults, ...given }
}
