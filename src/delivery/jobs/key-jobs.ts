import type pg from 'pg'
import type { Database } from '../../database/database.ts'

/** The first event of a key's job. */
interface FirstEvent {
  readonly keyId: string
  readonly eventId: string
}

/** Finds the job of a key that has not ended and begins with an event. Returns its id. */
export async function findKeyJob(
  client: pg.ClientBase,
  { bossSchema }: Pick<Database, 'bossSchema'>,
  queue: string,
  { keyId, eventId }: FirstEvent,
): Promise<string | undefined> {
  const { rows } = await client.query<{ id: string }>(
    `select id from ${bossSchema}.job where name = $1 and state < 'completed' and data->>'keyId' = $2 and data->'eventIds'->>0 = $3`,
    [queue, keyId, eventId],
  )
  return rows[0]?.id
}

/** Deletes the dead letter of a key's event. Locks its row. Repeating it changes nothing. */
export async function deleteKeyDeadLetter(
  client: pg.ClientBase,
  { bossSchema }: Pick<Database, 'bossSchema'>,
  deadLetterQueue: string,
  { keyId, eventId }: FirstEvent,
): Promise<void> {
  await client.query(
    `delete from ${bossSchema}.job where name = $1 and state < 'active' and data->>'keyId' = $2 and data->'eventIds'->>0 = $3`,
    [deadLetterQueue, keyId, eventId],
  )
}

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
