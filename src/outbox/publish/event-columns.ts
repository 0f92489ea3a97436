/**
 * Events as `bus.store_events` takes them: text values by the names of its parameters. The payloads are one JSON text a
 * line, everything else PostgreSQL array literals; what no event has is left out, and what only some of them have is a JSON array,
 * because whether a literal can hold null is a setting of the caller's connection. Text, because drivers disagree about arrays.
 */
export type EventColumns = readonly (readonly [name: ColumnName, value: string, form: ColumnForm])[]

/** An array literal or, of the payloads, lines; a JSON array; a JSON array of times, some of which are seconds from now. */
type ColumnForm = 'text' | 'json' | 'due'

type ColumnName = keyof typeof columnTypes

/** The parameters of `bus.store_events` and their types. */
const columnTypes = {
  payloads: 'pg_catalog.text',
  tenant_ids: 'pg_catalog.text[]',
  types: 'pg_catalog.text[]',
  sources: 'pg_catalog.text[]',
  subjects: 'pg_catalog.text[]',
  schema_versions: 'pg_catalog.int2[]',
  event_ids: 'pg_catalog.text[]',
  idempotency_keys: 'pg_catalog.text[]',
  correlation_ids: 'pg_catalog.text[]',
  causation_ids: 'pg_catalog.uuid[]',
  ordering_keys: 'pg_catalog.text[]',
  metadata: 'pg_catalog.jsonb[]',
  available_ats: 'pg_catalog.timestamptz[]',
  expires_ats: 'pg_catalog.timestamptz[]',
} as const

/** An event that passed every check, each column as text. */
export type CheckedEvent = Readonly<Record<keyof typeof columnTypes, string | undefined>> & {
  readonly payloads: string
}

/** What publish sends for checked events. */
export function toColumns(events: readonly CheckedEvent[]): EventColumns {
  const columns: [ColumnName, string, ColumnForm][] = []
  for (const name of Object.keys(columnTypes) as ColumnName[]) {
    const values = events.map((event) => event[name])
    // JSON has no raw line breaks.
    if (name === 'payloads') columns.push([name, values.join('\n'), 'text'])
    else if (name === 'available_ats' && values.some((value) => value?.startsWith('+') === true))
      columns.push([name, jsonArray(values), 'due'])
    else if (values.every((value) => value !== undefined)) columns.push([name, arrayLiteral(values), 'text'])
    else if (values.some((value) => value !== undefined)) columns.push([name, jsonArray(values), 'json'])
  }
  return columns
}

function jsonArray(values: readonly (string | undefined)[]): string {
  return JSON.stringify(values.map((value) => value ?? null))
}

function arrayLiteral(values: readonly string[]): string {
  return `{${values.map((value) => `"${escaped(value)}"`).join(',')}}`
}

function escaped(value: string): string {
  return /["\\]/.test(value) ? value.replaceAll(/["\\]/g, String.raw`\$&`) : value
}

const text = 'pg_catalog.text'

/** What stands around the value of a column, in a statement that may run with any search path. */
export function around(name: ColumnName, form: ColumnForm): readonly [before: string, after: string] {
  const type = columnTypes[name]
  if (form === 'text') return ['', type === text ? `::${text}` : `::${text}::${type}`]
  return [
    `array(select ${form === 'due' ? dueTime : 'e.value'} from pg_catalog.jsonb_array_elements_text(`,
    `::${text}::pg_catalog.jsonb) with ordinality as e (value, place) order by e.place)::${type}`,
  ]
}

/** A time, or `+` and seconds from now by the server's clock. */
const dueTime = `case when pg_catalog.starts_with(e.value, '+')
  then pg_catalog.clock_timestamp() operator(pg_catalog.+) pg_catalog.make_interval(secs => pg_catalog.substr(e.value, 2)::pg_catalog.float8)
  else e.value::pg_catalog.timestamptz end`

const publishTemplates = new Map<string, TemplateStringsArray>()

/** The statement for some columns, as the strings of a template literal between its values. Made once for each set. */
export function publishTemplate(columns: EventColumns): TemplateStringsArray {
  const key = columns.map(([name, , form]) => `${name} ${form}`).join()
  let template = publishTemplates.get(key)
  if (template === undefined) {
    // Each column between what stands before and behind its value; the proof comes first.
    const parts: (readonly [string, string])[] = [
      ['', `::${text}`],
      ...columns.map(([name, , form]) => {
        const [before, after] = around(name, form)
        return [`, ${name} => ${before}`, after] as const
      }),
    ]
    const strings = [
      `select bus.publish_in_transaction(${parts[0]?.[0] ?? ''}`,
      ...parts.map(([, after], index) => `${after}${parts[index + 1]?.[0] ?? ') as reply'}`),
    ]
    template = Object.assign(strings, { raw: strings })
    publishTemplates.set(key, template)
  }
  return template
}
