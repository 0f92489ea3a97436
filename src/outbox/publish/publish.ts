import type { Published } from '../../events/envelope.ts'
import { statement } from '../transactions/caller-connection.ts'
import { callInTransaction, type CallerTransaction } from '../transactions/caller-transaction.ts'
import type { EncodedEvent, EventColumn } from './check-events.ts'

/** Longest column that may be sent to a handle that might refuse it. */
const maxRefusedLength = 8192

/**
 * Events in the form that `bus.store_events` takes: text values, by parameter name. The payloads are one JSON text per
 * line; other columns are PostgreSQL array literals. A column that no event has is omitted. A column that only some
 * events have is a JSON array, because whether a literal may contain null depends on a setting of the caller's
 * connection. Values are text, because drivers encode arrays differently.
 */
export type EventColumns = readonly (readonly [name: EventColumn, value: string, form: ColumnForm])[]

/** An array literal, or lines for the payloads; a JSON array; a JSON array of times, some of which are seconds from now. */
type ColumnForm = 'text' | 'json' | 'due'

/**
 * Writes events in the caller's transaction: see {@link callInTransaction}. The database finds duplicates: `bus.claim_event_keys` in
 * drizzle/0000_log_and_outbox.sql.
 *
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: nothing was written
 */
export async function publishInTransaction(
  tx: CallerTransaction,
  columns: EventColumns,
): Promise<Published[]> {
  // Asking first may cost a needless round trip; sending events that are refused costs their transfer.
  const isLarge = columns.some(([, value]) => value.length > maxRefusedLength)
  const answer = await callInTransaction(
    tx,
    (proof) => statement(publishTemplate(columns), proof, ...columns.map(([, value]) => value)),
    isLarge ? (proof) => statement(publishTemplate([]), proof) : undefined,
  )
  return toPublished(answer)
}

/** Parses ids separated by commas; `*` after an id marks a duplicate. */
function toPublished(reply: string): Published[] {
  return reply.split(',').map((text) => ({ id: text.slice(0, 36), duplicate: text.length > 36 }))
}

/** Writes events in a transaction of their own, on one of the bus's own connections. */
export async function publishOnItsOwn(
  executor: {
    query: (text: string, values: unknown[]) => Promise<{ rows: { reply: string }[] }>
  },
  columns: EventColumns,
): Promise<Published[]> {
  const parameters = columns.map(([name, , form], index) => {
    const [before, after] = around(name, form)
    return `${name} => ${before}$${index + 1}${after}`
  })
  const { rows } = await executor.query(
    // name_transaction is called for its check alone: it refuses session_replication_role = replica.
    `select bus.store_events(${parameters.join(', ')}) as reply from bus.name_transaction(null)`,
    columns.map(([, value]) => value),
  )
  return toPublished(rows[0]?.reply ?? '')
}

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
} as const satisfies Record<EventColumn, string>

/**
 * The columns that publish sends for validated events.
 *
 * @param metadata - in place of that of the events
 */
export function toColumns(
  events: readonly EncodedEvent[],
  metadata?: readonly (string | undefined)[],
): EventColumns {
  const columns: [EventColumn, string, ColumnForm][] = []
  for (const name of Object.keys(columnTypes) as EventColumn[]) {
    const values = (name === 'metadata' ? metadata : undefined) ?? events.map((event) => event[name])
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

/** The events of a call have much in common: a value that is like the one before it is not escaped again. */
function arrayLiteral(values: readonly string[]): string {
  let last = ''
  let literal = '""'
  const literals = values.map((value) => {
    if (value === last) return literal
    last = value
    literal = `"${escaped(value)}"`
    return literal
  })
  return `{${literals.join(',')}}`
}

function escaped(value: string): string {
  // Metadata are full of quotation marks: a pattern that finds both would take three times as long.
  const slashed = value.includes('\\') ? value.replaceAll('\\', '\\\\') : value
  return slashed.includes('"') ? slashed.replaceAll('"', String.raw`\"`) : slashed
}

const textType = 'pg_catalog.text'

/** The SQL around the value of a column, valid for any search path. */
function around(name: EventColumn, form: ColumnForm): readonly [before: string, after: string] {
  const type = columnTypes[name]
  if (form === 'text') return ['', type === textType ? `::${textType}` : `::${textType}::${type}`]
  return [
    `array(select ${form === 'due' ? dueTime : 'e.value'} from pg_catalog.jsonb_array_elements_text(`,
    `::${textType}::pg_catalog.jsonb) with ordinality as e (value, place) order by e.place)::${type}`,
  ]
}

/** A time, or `+` and seconds from now by the server's clock. */
const dueTime = `case when pg_catalog.starts_with(e.value, '+')
  then pg_catalog.clock_timestamp() operator(pg_catalog.+) pg_catalog.make_interval(secs => pg_catalog.substr(e.value, 2)::pg_catalog.float8)
  else e.value::pg_catalog.timestamptz end`

const publishTemplates = new Map<string, TemplateStringsArray>()

/** The statement for a set of columns, as the strings of a template literal between its values. Built once per set. */
function publishTemplate(columns: EventColumns): TemplateStringsArray {
  const key = columns.map(([name, , form]) => `${name} ${form}`).join()
  let template = publishTemplates.get(key)
  if (template === undefined) {
    // Each column between the SQL before and after its value; the proof comes first.
    const parts: (readonly [string, string])[] = [
      ['', `::${textType}`],
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
