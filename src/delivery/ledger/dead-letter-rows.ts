import type pg from 'pg'
import type { Executor } from '../../database/database.ts'

/** A dead letter, as `bus.failing` has it. */
export interface DeadLetterEntry {
  readonly subscriptionId: number
  readonly eventId: string
  /** The job that became the dead letter. */
  readonly jobId: string
  readonly attempts: number
  readonly keyId: string | undefined
  readonly state: 'dead' | 'blocked' | 'parked'
  /** When it became one, to the microsecond. */
  readonly failedAt: string
}

interface EntryRow extends Record<string, unknown> {
  readonly subscription_id: number
  readonly event_id: string
  readonly job_id: string
  readonly attempts: number
  readonly key_id: string | null
  readonly state: DeadLetterEntry['state']
  readonly failed_at: string
}

/**
 * The next dead letters that match a filter, in the order in which they became that. Those that are parked behind another one, without
 * an attempt, are not among them.
 *
 * @param filter - as `bus.dead_letter_condition` describes it; `types` are ignored
 */
export async function readEntries(
  executor: Executor,
  filter: object,
  maxCount: number,
): Promise<DeadLetterEntry[]> {
  const { rows } = await executor.query<EntryRow>(
    `select f.subscription_id, f.event_id, f.job_id, f.attempts, f.key_id, f.state,
       to_char(f.failed_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as failed_at
     from bus.dead_letter_rows($1::jsonb, $2) f order by f.failed_at, f.event_id, f.subscription_id`,
    [JSON.stringify(filter), maxCount],
  )
  return rows.map((row) => ({
    subscriptionId: row.subscription_id,
    eventId: row.event_id,
    jobId: row.job_id,
    attempts: row.attempts,
    keyId: row.key_id ?? undefined,
    state: row.state,
    failedAt: row.failed_at,
  }))
}

/** A dead letter that is tried again by a job. */
export interface RetriedEntry {
  readonly eventId: string
  readonly jobId: string
}

/** Records that dead letters are tried again now, each by the given job. Locks their rows, in the order of their events. */
export async function markRetrying(
  client: pg.ClientBase,
  subscriptionId: number,
  retried: readonly RetriedEntry[],
): Promise<void> {
  if (retried.length === 0) return
  const sorted = retried.toSorted((a, b) => (a.eventId < b.eventId ? -1 : 1))
  await client.query(
    `with locked as materialized (
       select f.event_id from bus.failing f where f.subscription_id = $1 and f.event_id = any($2::uuid[]) order by f.event_id for update
     )
     update bus.failing f set state = 'retrying', job_id = r.job_id, next_attempt_at = now()
     from unnest($2::uuid[], $3::uuid[]) as r (event_id, job_id) join locked l using (event_id)
     where f.subscription_id = $1 and f.event_id = r.event_id`,
    [subscriptionId, sorted.map(({ eventId }) => eventId), sorted.map(({ jobId }) => jobId)],
  )
}

/** Removes dead letters: their events wait again as if they had not been tried, or are done. */
export async function removeEntries(
  client: pg.ClientBase,
  subscriptionId: number,
  eventIds: readonly string[],
): Promise<void> {
  if (eventIds.length === 0) return
  await client.query(
    `delete from bus.failing f using (
       select f.event_id from bus.failing f where f.subscription_id = $1 and f.event_id = any($2::uuid[]) order by f.event_id for update
     ) locked
     where f.subscription_id = $1 and f.event_id = locked.event_id`,
    [subscriptionId, eventIds],
  )
}

/**
 * Records that events are not going to be delivered. A receipt that is there already stays.
 *
 * @param discardId - the record in `bus.audit`, or the operation, that says by whom and why
 */
export async function insertDiscards(
  client: pg.ClientBase,
  subscriptionId: number,
  discarded: readonly Pick<DeadLetterEntry, 'eventId' | 'attempts'>[],
  discardId: string,
): Promise<void> {
  if (discarded.length === 0) return
  await client.query(
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms, expired, discard_id)
     select $1, r.event_id, r.attempts, 0, true, $4 from unnest($2::uuid[], $3::smallint[]) as r (event_id, attempts)
     on conflict do nothing`,
    [
      subscriptionId,
      discarded.map(({ eventId }) => eventId),
      discarded.map(({ attempts }) => attempts),
      discardId,
    ],
  )
}
