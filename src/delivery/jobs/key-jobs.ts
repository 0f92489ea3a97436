import type pg from 'pg'
import type { Database } from '../../database/database.ts'

/** The event that blocks or parks a key. */
interface FailedEvent {
  readonly keyId: string
  readonly eventId: string
  /** The job that became its dead letter, if the ledger knows it: its jobs are then found by index. */
  readonly jobId: string | undefined
}

/** Finds the job that a failed event of a key was redriven to, if it has not ended. Returns its id. */
export async function findRedrivenJob(
  client: pg.ClientBase,
  { bossSchema }: Pick<Database, 'bossSchema'>,
  queue: string,
  failed: FailedEvent,
): Promise<string | undefined> {
  const { rows } = await client.query<{ id: string }>(
    `select id from ${bossSchema}.job where name = $1 and state < 'completed' and ${isOfEventSql}`,
    [queue, failed.keyId, failed.eventId, failed.jobId ?? null],
  )
  return rows[0]?.id
}

/** Deletes the dead letter of a failed event of a key. Locks its row. Repeating it changes nothing. */
export async function deleteKeyDeadLetter(
  client: pg.ClientBase,
  { bossSchema }: Pick<Database, 'bossSchema'>,
  deadLetterQueue: string,
  failed: FailedEvent,
): Promise<void> {
  await client.query(
    `delete from ${bossSchema}.job where name = $1 and state < 'active' and ${isOfEventSql}`,
    [deadLetterQueue, failed.keyId, failed.eventId, failed.jobId ?? null],
  )
}

/** The job is named where it is known, so that no other one of the queue is read: by itself, or as what another was redriven from. */
const isOfEventSql = `($4::uuid is null or id = $4 or source_root_id = $4) and data->>'keyId' = $2 and data->'eventIds'->>0 = $3`

/** In SQL: whether a job has not ended. The queue and the id are SQL as well. */
export function isUnfinishedSql(
  { bossSchema }: Pick<Database, 'bossSchema'>,
  { queue, id }: { readonly queue: string; readonly id: string },
): string {
  return `exists (
    select from ${bossSchema}.job j where j.name = ${queue} and j.id = ${id} and j.state < 'completed')`
}

/** In SQL: whether a claim is the newest one of its job. Queue, id and retry count are SQL as well. */
export function isCurrentSql(
  { bossSchema }: Pick<Database, 'bossSchema'>,
  { queue, id, retryCount }: { readonly queue: string; readonly id: string; readonly retryCount: string },
): string {
  return `exists (
    select from ${bossSchema}.job j where j.name = ${queue} and j.id = ${id} and j.state = 'active' and j.retry_count = ${retryCount})`
}
