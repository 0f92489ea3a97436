/**
 * Events in the form that `bus.store_events` takes: text values, by parameter name. The payloads are one JSON text per
 * line; other columns are PostgreSQL array literals. A column that no event has is omitted. A column that only some
 * events have is a JSON array, because whether a literal may contain null depends on a setting of the caller's
 * connection. Values are text, because drivers encode arrays differently.
 */
export type EventColumns = readonly (readonly [name: ColumnName, value: string, form: ColumnForm])[]

/** An array literal, or lines for the payloads; a JSON array; a JSON array of times, some of which are seconds from now. */
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

/** A validated event, each column as text. */
export type CheckedEvent = Readonly<Record<keyof typeof columnTypes, string | undefined>> & {
  readonly payloads: string
}

/** The columns that publish sends for validated events. */
export function toColumns(events: readonly CheckedEvent[]): EventColumns {
  const columns: [ColumnName, string, ColumnForm][] = []
  for (const name of Object.keys(columnTypes) as ColumnName[]) {
    const values = events.map((event) => event[name])
    // JSON contains no raw line breaks.
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

/** The SQL around the value of a column, valid for any search path. */
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

/** The statement for a set of columns, as the strings of a template literal between its values. Built once per set. */
export function publishTemplate(columns: EventColumns): TemplateStringsArray {
  const key = columns.map(([name, , form]) => `${name} ${form}`).join()
  let template = publishTemplates.get(key)
  if (template === undefined) {
    // Each column between the SQL before and after its value; the proof comes first.
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
