import { z } from 'zod'
import { defineEvents, type EventCatalogue } from '../../src/index.ts'
import { encodeEvents, type UncheckedEvent } from '../../src/outbox/publish.ts'

const anything = defineEvents({
  note: { schema: z.unknown() },
  'usage.billed': { schema: z.object({ units: z.number() }), sources: ['billing', 'back-office'] },
})

interface EncodeOptions {
  readonly catalogue?: EventCatalogue
  readonly source?: string
  readonly maxPayloadBytes?: number
}

/** What publish would send to the database for some events. */
export async function encodeAll(
  events: unknown,
  { catalogue = anything, source = 'tests', maxPayloadBytes = 262_144 }: EncodeOptions = {},
): Promise<Record<string, unknown>[]> {
  const text = await encodeEvents({ catalogue, source, maxPayloadBytes }, events as UncheckedEvent[])
  return JSON.parse(text) as Record<string, unknown>[]
}

/** What publish would send to the database for one event: a `note` of `acme`, but for the fields given. */
export async function encodeNote(
  fields: Readonly<Record<string, unknown>>,
  options?: EncodeOptions,
): Promise<Record<string, unknown>> {
  const [encoded] = await encodeAll([{ type: 'note', tenantId: 'acme', payload: 'x', ...fields }], options)
  return encoded ?? {}
}
