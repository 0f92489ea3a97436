import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import { timeInId } from '../../events/event-id.ts'
import { queryPrepared } from '../../database/prepared.ts'

/** What is written about an event that is delivered. */
export interface Receipt {
  readonly eventId: string
  readonly attempts: number
  readonly durationMs: number
  readonly expired: boolean
  readonly erased: boolean
}

/** Ids are in lower case, so this is the order of the uuids. */
export function byEventId(a: Receipt, b: Receipt): number {
  return a.eventId < b.eventId ? -1 : 1
}

/** Which of some events have a receipt. A duplicate that is published is found by `bus.claim_event_keys`, in drizzle/0000_log_and_outbox.sql. */
export async function readReceipts(
  executor: Pick<pg.ClientBase, 'query'> | Database,
  subscriptionId: number,
  eventIds: readonly string[],
): Promise<ReadonlySet<string>> {
  const { rows } = await (executor as Database).query<{ event_id: string }>(
    'select event_id from bus.received_events($1, $2::uuid[]) as event_id',
    [subscriptionId, eventIds],
  )
  return new Set(rows.map((row) => row.event_id))
}

/** The SQLSTATE of a key that is there already. */
export const uniqueViolation = '23505'

/**
 * Inserts receipts with a row of their own. One that is there already stays; unless it `mayExist`, it is a unique violation. A receipt that
 * may exist may also be packed. Resolves to those that were inserted.
 */
export async function insertReceipts(
  client: pg.ClientBase,
  subscriptionId: number,
  receipts: readonly Receipt[],
  mayExist: boolean,
): Promise<readonly Receipt[]> {
  if (receipts.length === 0) return []
  // The column is left out where it can be: hardly any event is erased while it waits.
  const someErased = receipts.some(({ erased }) => erased)
  const { rows } = await queryPrepared(
    client,
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms, expired${someErased ? ', erased' : ''})
     select $1, r.* from unnest($2::uuid[], $3::smallint[], $4::real[], $5::boolean[]${someErased ? `, array_replace($6::boolean[], false, null)` : ''}) r (event_id)
     ${mayExist ? 'where not exists (select from bus.received_events($1, array[r.event_id])) on conflict do nothing returning event_id' : ''}`,
    [
      subscriptionId,
      arrayOf(receipts, (receipt) => receipt.eventId),
      arrayOf(receipts, (receipt) => String(receipt.attempts)),
      arrayOf(receipts, (receipt) => receipt.durationMs.toFixed(3)),
      arrayOf(receipts, (receipt) => (receipt.expired ? 't' : 'f')),
      ...(someErased ? [arrayOf(receipts, (receipt) => (receipt.erased ? 't' : 'f'))] : []),
    ],
  )
  if (!mayExist) return receipts
  const inserted = new Set((rows as { readonly event_id: string }[]).map(({ event_id }) => event_id))
  return receipts.filter(({ eventId }) => inserted.has(eventId))
}

/** As many as fit in a row that PostgreSQL stores in place: twenty bytes each, and two kilobytes at most. */
const maxPacked = 90

/** Fewer take no less space packed than in rows of their own. */
const minPacked = 4

/** The events of a packed row were published in the same span of so many milliseconds: see `bus.receipt_span_floor`. */
const spanMs = 10_000

/** Receipts, prepared for {@link insertPacked}: those that are worth packing, and the others. */
export interface PackedReceipts {
  /** Grouped, and sorted within each group. */
  readonly packed: readonly (readonly Receipt[])[]
  readonly single: readonly Receipt[]
}

/** Groups receipts by when their events were published. */
export function packReceipts(receipts: readonly Receipt[]): PackedReceipts {
  const sorted = receipts.toSorted(byEventId)
  const packed: (readonly Receipt[])[] = []
  const single: Receipt[] = []
  for (let first = 0; first < sorted.length;) {
    const span = spanOf(sorted[first])
    let end = first + 1
    while (end < sorted.length && spanOf(sorted[end]) === span) end += 1
    const group = sorted.slice(first, end)
    if (group.length < minPacked) single.push(...group)
    else {
      // Rows of equal length: a short one takes as much for its header and its index entry as a long one.
      const size = Math.ceil(group.length / Math.ceil(group.length / maxPacked))
      for (let start = 0; start < group.length; start += size) packed.push(group.slice(start, start + size))
    }
    first = end
  }
  return { packed, single }
}

function spanOf(receipt: Receipt | undefined): number {
  return Math.floor(timeInId(receipt?.eventId ?? '') / spanMs)
}

/**
 * Inserts packed receipts. No key protects them: the caller has made sure, by the lock on their job, that nobody has written or can write
 * another receipt of these events.
 */
export async function insertPacked(
  client: pg.ClientBase,
  subscriptionId: number,
  groups: readonly (readonly Receipt[])[],
): Promise<void> {
  if (groups.length === 0) return
  const all = groups.flat()
  const lasts: number[] = []
  for (const group of groups) lasts.push((lasts.at(-1) ?? 0) + group.length)
  await queryPrepared(
    client,
    `insert into bus.receipt_batches (subscription_id, event_id, last_event_id, event_ids, durations_ms)
     select $1, e.ids[g.first], e.ids[g.last], e.ids[g.first:g.last], e.durations[g.first:g.last]
     from (select $2::uuid[] as ids, $3::real[] as durations) e
     cross join unnest($4::int[], $5::int[]) as g (first, last)`,
    [
      subscriptionId,
      arrayOf(all, (receipt) => receipt.eventId),
      arrayOf(all, (receipt) => receipt.durationMs.toFixed(3)),
      `{${groups.map((group, index) => (lasts[index] ?? 0) - group.length + 1).join(',')}}`,
      `{${lasts.join(',')}}`,
    ],
  )
}

/** An array literal of values that need no quotes. The driver's own takes several times as long. */
function arrayOf(receipts: readonly Receipt[], field: (receipt: Receipt) => string): string {
  return `{${receipts.map(field).join(',')}}`
}
