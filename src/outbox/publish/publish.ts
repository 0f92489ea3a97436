import type { Published } from '../../events/envelope.ts'
import { statement } from '../transactions/caller-connection.ts'
import { callInTransaction, type CallerTransaction } from '../transactions/caller-transaction.ts'
import { around, publishTemplate, toColumns, type EventColumns } from './event-columns.ts'
import { type PublishSettings, type UncheckedEvent, checkEvents, maxRefusedLength } from './check-events.ts'

/**
 * Validates events and converts them to columns. Nothing is sent to the database before every event is valid.
 *
 * @throws an {@link InvalidEventError} for the first invalid event, with its position
 */
export async function encodeEvents(
  settings: PublishSettings,
  newEvents: readonly UncheckedEvent[],
): Promise<EventColumns> {
  return toColumns((await checkEvents(settings, newEvents)).map(({ columns }) => columns))
}

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
