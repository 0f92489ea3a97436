import type pg from 'pg'
import type { Database } from '../../database/database.ts'

/** How many events of a replay a settlement has ended, and how. */
interface EndedCounts {
  readonly delivered?: number
  /** Expired, or erased. */
  readonly expired?: number
  readonly dead?: number
}

/**
 * Counts what became of events of a replay, in the transaction that settles them. Only inserts, so that workers do not wait for each other;
 * a part of the operation adds the rows up.
 */
export async function countReplayed(
  client: pg.ClientBase,
  ledgerId: number,
  { delivered = 0, expired = 0, dead = 0 }: EndedCounts,
): Promise<void> {
  if (delivered + expired + dead === 0) return
  await client.query(
    'insert into bus.replay_outcomes (replay_id, delivered, expired, dead) values ($1, $2, $3, $4)',
    [ledgerId, delivered, expired, dead],
  )
}

/**
 * Whether a replay was cancelled. Then those of its events that are failing are not any more: they are not tried again. Repeating it
 * changes nothing.
 */
export async function dropIfCancelled(
  database: Pick<Database, 'query'>,
  { operationId, ledgerId }: { readonly operationId: string; readonly ledgerId: number },
  eventIds: readonly string[],
): Promise<boolean> {
  const { rows } = await database.query(`select from bus.operations where id = $1 and state = 'cancelled'`, [
    operationId,
  ])
  if (rows.length === 0) return false
  await database.query('delete from bus.failing where subscription_id = $1 and event_id = any ($2::uuid[])', [
    ledgerId,
    eventIds,
  ])
  return true
}
