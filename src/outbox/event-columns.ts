/**
 * Events as `bus.store_events` takes them: text values by the names of its parameters. The payloads are one JSON text a
 * line, everything else PostgreSQL array literals; what no event has is left out. Text, because drivers disagree about
 * arrays.
 */
export type EventColumns = readonly (readonly [name: keyof typeof columnTypes, value: string])[]

/** The parameters of `bus.store_events` and their types. */
export const columnTypes = {
  payloads: 'text',
  tenant_ids: 'text[]',
  types: 'text[]',
  sources: 'text[]',
  subjects: 'text[]',
  schema_versions: 'smallint[]',
  event_ids: 'text[]',
  idempotency_keys: 'text[]',
  correlation_ids: 'text[]',
  causation_ids: 'uuid[]',
  ordering_keys: 'text[]',
  metadata: 'jsonb[]',
  available_ats: 'timestamptz[]',
  expires_ats: 'timestamptz[]',
} as const

/** An event that passed every check, each column as text. */
export type CheckedEvent = Readonly<Record<keyof typeof columnTypes, string | undefined>> & {
  readonly payloads: string
}

/** What publish sends for checked events. */
export function toColumns(events: readonly CheckedEvent[]): EventColumns {
  const columns: [keyof typeof columnTypes, string][] = []
  for (const name of Object.keys(columnTypes) as (keyof typeof columnTypes)[]) {
    const values = events.map((event) => event[name])
    // JSON has no raw line breaks.
    if (name === 'payloads') columns.push([name, values.join('\n')])
    else if (values.some((value) => value !== undefined)) columns.push([name, arrayLiteral(values)])
  }
  return columns
}

function arrayLiteral(values: readonly (string | undefined)[]): string {
  return `{${values.map((value) => (value === undefined ? 'NULL' : `"${escaped(value)}"`)).join(',')}}`
}

function escaped(value: string): string {
  return /["\\]/.test(value) ? value.replaceAll(/["\\]/g, String.raw`\$&`) : value
}

const publishTemplates = new Map<string, TemplateStringsArray>()

/** The statement for some columns, as the strings of a template literal between its values. Made once for each set. */
export function publishTemplate(columns: EventColumns): TemplateStringsArray {
  const key = columns.map(([name]) => name).join()
  let template = publishTemplates.get(key)
  if (template === undefined) {
    const casts = ['text', ...columns.map(([name]) => `text::${columnTypes[name]}`)]
    const ends = [...columns.map(([name]) => `, ${name} => `), ') as reply']
    const strings = [
      'select bus.publish_in_transaction(',
      ...casts.map((cast, index) => `::${cast}${ends[index] ?? ''}`),
    ]
    template = Object.assign(strings, { raw: strings })
    publishTemplates.set(key, template)
  }
  return template
}
