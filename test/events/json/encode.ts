import { z } from 'zod'
import { defineEvents, type EventCatalogue } from '../../../src/index.ts'
import { checkEvents, type UncheckedEvent } from '../../../src/outbox/publish/check-events.ts'
import { toColumns } from '../../../src/outbox/publish/publish.ts'

const anything = defineEvents({
  note: { schema: z.unknown() },
  'usage.billed': { schema: z.object({ units: z.number() }), sources: ['billing', 'back-office'] },
})

interface EncodeOptions {
  readonly catalogue?: EventCatalogue
  readonly source?: string
  readonly maxPayloadBytes?: number
}

const fieldNames: Readonly<Record<string, string>> = {
  tenant_ids: 'tenantId',
  types: 'type',
  sources: 'source',
  subjects: 'subject',
  schema_versions: 'schemaVersion',
  event_ids: 'eventId',
  idempotency_keys: 'idempotencyKey',
  correlation_ids: 'correlationId',
  causation_ids: 'causationId',
  ordering_keys: 'orderingKey',
  metadata: 'metadata',
  available_ats: 'availableAt',
}

/** What publish would send to the database for some events. */
export async function encodeAll(
  events: unknown,
  { catalogue = anything, source = 'tests', maxPayloadBytes = 262_144 }: EncodeOptions = {},
): Promise<Record<string, unknown>[]> {
  const checked = await checkEvents({ catalogue, source, maxPayloadBytes }, events as UncheckedEvent[])
  const sent = toColumns(checked.map((event) => event.columns))
  const columns = new Map<string, string>(sent.map(([name, value]) => [name, value]))
  const encoded = (columns.get('payloads') ?? '').split('\n').map((line): Record<string, unknown> => ({
    schemaVersion: 1,
    metadata: {},
    payload: JSON.parse(line) as unknown,
  }))
  for (const [column, field] of Object.entries(fieldNames)) {
    for (const [index, text] of elementsOf(columns.get(column) ?? '{}').entries()) {
      const event = encoded[index] ?? {}
      if (text === null) continue
      if (field === 'metadata') event[field] = JSON.parse(text) as unknown
      else event[field] = field === 'schemaVersion' ? Number(text) : text
    }
  }
  return encoded
}

/** The elements of a PostgreSQL array literal, or of the JSON array that is sent where some are null. */
function elementsOf(literal: string): (string | null)[] {
  if (literal.startsWith('[')) return JSON.parse(literal) as (string | null)[]
  return [...literal.slice(1, -1).matchAll(/"((?:[^"\\]|\\.)*)"|NULL/gs)].map(
    ([, quoted]) => quoted?.replaceAll(/\\(.)/gs, '$1') ?? null,
  )
}

/** What publish would send to the database for one event: a `note` of `acme`, but for the fields given. */
export async function encodeNote(
  fields: Readonly<Record<string, unknown>>,
  options?: EncodeOptions,
): Promise<Record<string, unknown>> {
  const [encoded] = await encodeAll([{ type: 'note', tenantId: 'acme', payload: 'x', ...fields }], options)
  return encoded ?? {}
}
