import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import { queryPrepared } from '../../database/prepared.ts'

/** What is written about an event that is delivered. */
export interface Receipt {
  readonly eventId: string
  readonly attempts: number
  readonly durationMs: number
  readonly expired: boolean
  readonly erased: boolean
}

/** Which of some events have a receipt. */
export async function readReceipts(
  executor: Pick<pg.ClientBase, 'query'> | Database,
  subscriptionId: number,
  eventIds: readonly string[],
): Promise<ReadonlySet<string>> {
  const { rows } = await (executor as Database).query<{ event_id: string }>(
    'select event_id from bus.deliveries where subscription_id = $1 and event_id = any($2::uuid[])',
    [subscriptionId, eventIds],
  )
  return new Set(rows.map((row) => row.event_id))
}

/** The SQLSTATE of a key that is there already. */
export const uniqueViolation = '23505'

/** A receipt that is there already stays; unless it `mayExist`, it is a unique violation. */
export async function insertReceipts(
  client: pg.ClientBase,
  subscriptionId: number,
  receipts: readonly Receipt[],
  mayExist: boolean,
): Promise<void> {
  // The column is left out where it can be: hardly any event is erased while it waits.
  const someErased = receipts.some(({ erased }) => erased)
  await queryPrepared(
    client,
    `insert into bus.deliveries (subscription_id, event_id, attempts, duration_ms, expired${someErased ? ', erased' : ''})
     select $1, * from unnest($2::uuid[], $3::smallint[], $4::real[], $5::boolean[]${someErased ? `, array_replace($6::boolean[], false, null)` : ''})
     ${mayExist ? 'on conflict do nothing' : ''}`,
    [
      subscriptionId,
      arrayOf(receipts, (receipt) => receipt.eventId),
      arrayOf(receipts, (receipt) => String(receipt.attempts)),
      arrayOf(receipts, (receipt) => receipt.durationMs.toFixed(3)),
      arrayOf(receipts, (receipt) => (receipt.expired ? 't' : 'f')),
      ...(someErased ? [arrayOf(receipts, (receipt) => (receipt.erased ? 't' : 'f'))] : []),
    ],
  )
}

/** An array literal of values that need no quotes. The driver's own takes several times as long. */
function arrayOf(receipts: readonly Receipt[], field: (receipt: Receipt) => string): string {
  return `{${receipts.map(field).join(',')}}`
}
