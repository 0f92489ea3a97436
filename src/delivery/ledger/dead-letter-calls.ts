import type pg from 'pg'
import type { Database } from '../../database/database.ts'

type Queries = Pick<Database, 'query'>

/** Writes down that a callback is to be told of dead letters, in the transaction that makes them. */
export async function insertCalls(
  client: pg.ClientBase,
  subscriptionId: number,
  eventIds: readonly string[],
): Promise<void> {
  await client.query(
    `insert into bus.dead_letter_calls (subscription_id, event_id, state, attempts, tenant_id)
     select f.subscription_id, f.event_id, f.state, f.attempts, f.tenant_id from bus.failing f
     where f.subscription_id = $1 and f.event_id = any($2::uuid[]) and f.state <> 'retrying'
     on conflict do nothing`,
    [subscriptionId, eventIds],
  )
}

/** A call that this process is to make. */
export interface ClaimedCall {
  readonly eventId: string
  /** As text, because it is a part of the key. */
  readonly deadAtText: string
  readonly deadAt: Date
  readonly state: 'dead' | 'blocked' | 'parked'
  readonly attempts: number
  readonly tenantId: string | undefined
  readonly error:
    { readonly name: string; readonly message: string; readonly code: string | undefined } | undefined
}

interface CallRow extends Record<string, unknown> {
  readonly event_id: string
  readonly dead_at_text: string
  readonly dead_at: Date
  readonly state: ClaimedCall['state']
  readonly attempts: number
  readonly tenant_id: string | null
}

interface ErrorRow extends Record<string, unknown> {
  readonly event_id: string
  readonly error_name: string
  readonly error_message: string | null
  readonly error_code: string | null
}

/** Claims the next calls of a subscription for a minute. Skips those that another process is claiming. */
export async function claimCalls(database: Queries, subscriptionId: number): Promise<ClaimedCall[]> {
  const { rows } = await database.query<CallRow>(
    `update bus.dead_letter_calls c set next_call_at = clock_timestamp() + interval '1 minute'
     from (
       select d.event_id, d.dead_at from bus.dead_letter_calls d
       where d.subscription_id = $1 and d.next_call_at <= clock_timestamp()
       order by d.next_call_at limit 20 for update skip locked
     ) n
     where c.subscription_id = $1 and c.event_id = n.event_id and c.dead_at = n.dead_at
     returning c.event_id, c.dead_at::text as dead_at_text, c.dead_at, c.state, c.attempts, c.tenant_id`,
    [subscriptionId],
  )
  if (rows.length === 0) return []
  const { rows: errors } = await database.query<ErrorRow>(
    `select distinct on (a.event_id) a.event_id, a.error_name, a.error_message, a.error_code from bus.attempts a
     where a.event_id = any($1::uuid[]) and a.subscription_id = $2 and not a.succeeded
     order by a.event_id, a.ended_at desc`,
    [rows.map((row) => row.event_id), subscriptionId],
  )
  const errorOf = new Map(
    errors.map((row) => [
      row.event_id,
      { name: row.error_name, message: row.error_message ?? '', code: row.error_code ?? undefined },
    ]),
  )
  return rows.map((row) => ({
    eventId: row.event_id,
    deadAtText: row.dead_at_text,
    deadAt: row.dead_at,
    state: row.state,
    attempts: row.attempts,
    tenantId: row.tenant_id ?? undefined,
    error: errorOf.get(row.event_id),
  }))
}

/** Removes a call that was made. */
export async function endCall(
  database: Queries,
  subscriptionId: number,
  { eventId, deadAtText }: ClaimedCall,
): Promise<void> {
  await database.query(
    'delete from bus.dead_letter_calls where subscription_id = $1 and event_id = $2 and dead_at = $3::timestamptz',
    [subscriptionId, eventId, deadAtText],
  )
}

/** A call that failed is made again later, for a day. Resolves to whether it was given up. */
export async function postponeCall(
  database: Queries,
  subscriptionId: number,
  { eventId, deadAtText }: ClaimedCall,
): Promise<boolean> {
  const { rows } = await database.query<{ given_up: boolean }>(
    `with given_up as (
       delete from bus.dead_letter_calls where subscription_id = $1 and event_id = $2 and dead_at = $3::timestamptz
         and dead_at < now() - interval '1 day' returning 1
     ), postponed as (
       update bus.dead_letter_calls set error_count = error_count + 1,
         next_call_at = clock_timestamp() + least(300, 2 ^ least(error_count, 9)) * interval '1 second'
       where subscription_id = $1 and event_id = $2 and dead_at = $3::timestamptz and dead_at >= now() - interval '1 day'
     )
     select exists (select from given_up) as given_up`,
    [subscriptionId, eventId, deadAtText],
  )
  return rows[0]?.given_up === true
}

/**
 * Claims the alert of a subscription for a minute: where it has collected so many dead letters, and has not been raised in this time, or was
 * raised and not told yet. Returns when the oldest of the dead letters became one. Counts no further than the limit.
 */
export async function claimAlert(
  database: Queries,
  subscriptionId: number,
  { count, perSeconds }: { readonly count: number; readonly perSeconds: number },
): Promise<Date | undefined> {
  const { rows } = await database.query<{ first_at: Date }>(
    `with recent as materialized (
       select f.failed_at from bus.failing f
       where f.subscription_id = $1 and f.state <> 'retrying' and f.failed_at > clock_timestamp() - $3 * interval '1 second'
       order by f.failed_at desc, f.event_id desc limit $2
     ), raised as (
       insert into bus.dead_letter_alerts as a (subscription_id, first_at, next_call_at)
       select $1, min(r.failed_at), clock_timestamp() + interval '1 minute' from recent r having count(*) >= $2
       on conflict (subscription_id) do update
         set raised_at = clock_timestamp(), first_at = excluded.first_at, error_count = 0, next_call_at = excluded.next_call_at
         where a.next_call_at is null and a.raised_at <= clock_timestamp() - $3 * interval '1 second'
       returning first_at
     ), left_over as (
       update bus.dead_letter_alerts set next_call_at = clock_timestamp() + interval '1 minute'
       where subscription_id = $1 and next_call_at <= clock_timestamp() returning first_at
     )
     select first_at from raised union all select first_at from left_over limit 1`,
    [subscriptionId, count, perSeconds],
  )
  return rows[0]?.first_at
}

/** The alert has been told. */
export async function endAlert(database: Queries, subscriptionId: number): Promise<void> {
  await database.query('update bus.dead_letter_alerts set next_call_at = null where subscription_id = $1', [
    subscriptionId,
  ])
}

/** An alert that could not be told is told later. */
export async function postponeAlert(database: Queries, subscriptionId: number): Promise<void> {
  await database.query(
    `update bus.dead_letter_alerts set error_count = error_count + 1,
       next_call_at = clock_timestamp() + least(300, 2 ^ least(error_count, 9)) * interval '1 second'
     where subscription_id = $1`,
    [subscriptionId],
  )
}
