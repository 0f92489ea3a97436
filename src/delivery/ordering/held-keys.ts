import type pg from 'pg'
import type { AttemptFailure } from '../attempts/failure.ts'

/** A key that waits for a person, locked by the transaction that reads it. */
export interface HeldKey {
  readonly keyId: string
  /** The event that it waits for. */
  readonly eventId: string
  readonly attempts: number
  readonly failures: readonly AttemptFailure[]
}

/** Locks those of some keys of a subscription that are blocked or parked, in the order in which all lock them. Returns them by their failed event. */
export async function lockHeldKeys(
  client: pg.ClientBase,
  subscriptionId: number,
  keyIds: readonly string[],
): Promise<ReadonlyMap<string, HeldKey>> {
  if (keyIds.length === 0) return new Map()
  const { rows } = await client.query<{
    id: string
    failed_event_id: string
    attempts: number
    failures: readonly AttemptFailure[]
  }>(
    `select id, failed_event_id, attempts, failures from bus.ordered_keys
     where id = any($1::bigint[]) and subscription_id = $2 and state in ('blocked', 'parked')
     order by key_hash for update`,
    [keyIds, subscriptionId],
  )
  return new Map(
    rows.map(({ id, failed_event_id: eventId, attempts, failures }) => [
      eventId,
      { keyId: id, eventId, attempts, failures },
    ]),
  )
}

/** Makes locked keys active again: each has the given job now, with its failed event. The events behind it follow. */
export async function resumeKeys(
  client: pg.ClientBase,
  resumed: readonly { readonly keyId: string; readonly jobId: string }[],
): Promise<void> {
  if (resumed.length === 0) return
  await client.query(
    `update bus.ordered_keys k
     set state = 'active', job_id = r.job_id, failed_event_id = null, attempts = null, failures = null, failed_at = null
     from unnest($1::bigint[], $2::uuid[]) as r (key_id, job_id) where k.id = r.key_id`,
    [resumed.map(({ keyId }) => keyId), resumed.map(({ jobId }) => jobId)],
  )
}

/** Puts a copy in the place of the failed event of a locked key. */
export async function replaceFailedEvent(
  client: pg.ClientBase,
  { keyId, eventId }: HeldKey,
  copy: { readonly id: string; readonly payloadBytes: number },
): Promise<void> {
  await client.query(
    'update bus.ordered_events set event_id = $3, payload_bytes = $4 where key_id = $1 and event_id = $2',
    [keyId, eventId, copy.id, copy.payloadBytes],
  )
}
