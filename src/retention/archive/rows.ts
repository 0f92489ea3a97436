import type { Executor } from '../../database/database.ts'
import { keyColumn, type ArchivedTable } from './manifest.ts'

/** Rows of one statement: at most so many, and about so many bytes as they are stored. */
const pageRows = 2000
const pageBytes = 8 * 1024 * 1024

/** A row of the log or the ledger, as it is archived. */
export interface ArchivedRow {
  /** As `row_to_json` writes it: exact, with microseconds and the digits of each number. */
  readonly line: string
  readonly id: string
  /** PostgreSQL's `hash_record_extended(row, 0)`. */
  readonly hash: string
  readonly isErased: boolean
  /** The hash of tenant and subject of its event, as the index of `bus.erase` has it. Null without a subject. */
  readonly subjectHashes: readonly string[]
}

interface Row extends Record<string, unknown> {
  readonly line: string
  readonly id: string
  readonly hash: string
  readonly erased: boolean
  readonly hashes: readonly string[] | null
  readonly k1: string
  readonly k2: string
  readonly k3: string
}

const subjectHash = 'hashtextextended(e.subject, hashtextextended(e.tenant_id, 0))'

/** By which columns the pages of a table are read, and their types: an index has them. The third tells rows apart. */
const orders: Readonly<Record<ArchivedTable, readonly (readonly [column: string, type: string])[]>> = {
  events: [['id', 'uuid']],
  receipts: [
    ['subscription_id', 'int'],
    ['event_id', 'uuid'],
  ],
  receipt_batches: [
    ['subscription_id', 'int'],
    ['event_id', 'uuid'],
    ['last_event_id', 'uuid'],
    ['ctid', 'tid'],
  ],
  attempts: [
    ['event_id', 'uuid'],
    ['subscription_id', 'int'],
    ['attempt', 'smallint'],
    ['ended_at', 'timestamptz'],
  ],
}

/**
 * The rows of a range of a table, page by page. Each page is a statement of its own with a snapshot of its own: what changes meanwhile is
 * found by the hash before the range is dropped.
 */
export async function* readRange(
  executor: Executor,
  table: ArchivedTable,
  lower: string,
  upper: string,
): AsyncGenerator<readonly ArchivedRow[]> {
  const order = orders[table]
  const columns = order.map(([column]) => `t.${column}`).join(', ')
  const key = keyColumn(table)
  const range = `t.${key} >= '${lower}' and t.${key} < '${upper}'`
  let after: readonly string[] | undefined
  for (;;) {
    // Bounds and position are constants, so that only this partition is locked.
    const position =
      after === undefined
        ? ''
        : ` and (${columns}) > (${order.map(([, type], index) => `'${after?.[index] ?? ''}'::${type}`).join(', ')})`
    const { rows } = await executor.query<Row & { readonly position: readonly string[] }>(
      `select row_to_json(p.t)::text as line, p.id::text as id, hash_record_extended(p.t, 0)::text as hash, p.position,
         ${table === 'events' ? '(p.t).erased_at is not null' : 'false'} as erased, ${hashesOf(table, lower, upper)} as hashes
       from (
         select q.*, sum(q.bytes) over (order by q.ordinal) - q.bytes as bytes_before
         from (
           select r.*, row_number() over () as ordinal
           from (
             select t, t.${key} as id, array[${order.map(([column]) => `t.${column}::text`).join(', ')}] as position,
               ${table === 'events' ? 'pg_column_size(t.payload)::bigint' : '0::bigint'} as bytes
             from bus.${table} t where ${range}${position}
             order by ${columns} limit ${pageRows}
           ) r
         ) q
       ) p
       where p.bytes_before < ${pageBytes}
       order by p.ordinal`,
    )
    const last = rows.at(-1)
    if (last === undefined) return
    yield rows.map(({ line, id, hash, erased, hashes }) => ({
      line,
      id,
      hash,
      isErased: erased,
      subjectHashes: hashes ?? [],
    }))
    after = last.position
  }
}

/** What an event, a receipt or an attempt is about. Only attempts quote their events, by what their errors say. */
function hashesOf(table: ArchivedTable, lower: string, upper: string): string {
  if (table === 'events')
    return `case when (p.t).subject is not null then array[hashtextextended((p.t).subject, hashtextextended((p.t).tenant_id, 0))::text] end`
  if (table !== 'attempts') return 'null::text[]'
  return `(select array[${subjectHash}::text] from bus.events e where e.id = p.id and e.id >= '${lower}' and e.id < '${upper}' and e.subject is not null)`
}
