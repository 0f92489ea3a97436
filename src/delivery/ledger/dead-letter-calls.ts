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
  readonly subscriptionId: number
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
  readonly subscription_id: number
  readonly event_id: string
  readonly dead_at_text: string
  readonly dead_at: Date
  readonly state: ClaimedCall['state']
  readonly attempts: number
  readonly tenant_id: string | null
}

interface ErrorRow extends Record<string, unknown> {
  readonly subscription_id: number
  readonly event_id: string
  readonly error_name: string
  readonly error_message: string | null
  readonly error_code: string | null
}

/** The most calls of one subscription, and of all, that a process claims at a time. */
const maxOfSubscription = 20
const maxClaimed = 100

/**
 * Claims the next calls of some subscriptions for a minute. Skips those that another process is claiming. Locks no other rows; repeating it
 * claims further ones.
 */
export async function claimCalls(
  database: Queries,
  subscriptionIds: readonly number[],
): Promise<ClaimedCall[]> {
  if (subscriptionIds.length === 0) return []
  const { rows } = await database.query<CallRow>(
    `update bus.dead_letter_calls c set next_call_at = clock_timestamp() + interval '1 minute'
     from (
       select d.* from unnest($1::int[]) as s (id)
       cross join lateral (
         select d.subscription_id, d.event_id, d.dead_at from bus.dead_letter_calls d
         where d.subscription_id = s.id and d.next_call_at <= clock_timestamp()
         order by d.next_call_at limit ${maxOfSubscription} for update skip locked
       ) d
       limit ${maxClaimed}
     ) n
     where c.subscription_id = n.subscription_id and c.event_id = n.event_id and c.dead_at = n.dead_at
     returning c.subscription_id, c.event_id, c.dead_at::text as dead_at_text, c.dead_at, c.state, c.attempts, c.tenant_id`,
    [subscriptionIds],
  )
  if (rows.length === 0) return []
  const { rows: errors } = await database.query<ErrorRow>(
    `select distinct on (a.event_id, a.subscription_id) a.event_id, a.subscription_id, a.error_name, a.error_message, a.error_code
     from bus.attempts a
     where a.event_id = any($1::uuid[]) and a.subscription_id = any($2::int[]) and not a.succeeded
     order by a.event_id, a.subscription_id, a.ended_at desc`,
    [rows.map((row) => row.event_id), [...new Set(rows.map((row) => row.subscription_id))]],
  )
  const letterOf = (row: CallRow | ErrorRow): string => `${row.subscription_id}/${row.event_id}`
  const errorOf = new Map(
    errors.map((row) => [
      letterOf(row),
      { name: row.error_name, message: row.error_message ?? '', code: row.error_code ?? undefined },
    ]),
  )
  return rows.map((row) => ({
    subscriptionId: row.subscription_id,
    eventId: row.event_id,
    deadAtText: row.dead_at_text,
    deadAt: row.dead_at,
    state: row.state,
    attempts: row.attempts,
    tenantId: row.tenant_id ?? undefined,
    error: errorOf.get(letterOf(row)),
  }))
}

type CallKey = Pick<ClaimedCall, 'subscriptionId' | 'eventId' | 'deadAtText'>

/** The keys of calls, in SQL, and its values. */
const keysSql =
  'select * from unnest($1::int[], $2::uuid[], $3::timestamptz[]) as k (subscription_id, event_id, dead_at)'
const keysOf = (calls: readonly CallKey[]): unknown[] => [
  calls.map(({ subscriptionId }) => subscriptionId),
  calls.map(({ eventId }) => eventId),
  calls.map(({ deadAtText }) => deadAtText),
]
const isKey = 'c.subscription_id = k.subscription_id and c.event_id = k.event_id and c.dead_at = k.dead_at'

/** Removes calls that were made. */
export async function endCalls(database: Queries, calls: readonly CallKey[]): Promise<void> {
  if (calls.length === 0) return
  await database.query(
    `delete from bus.dead_letter_calls c using (${keysSql}) k where ${isKey}`,
    keysOf(calls),
  )
}

/** Calls that failed are made again later, for a day. Resolves to the events whose calls were given up. */
export async function postponeCalls(
  database: Queries,
  calls: readonly CallKey[],
): Promise<readonly { readonly subscriptionId: number; readonly eventId: string }[]> {
  if (calls.length === 0) return []
  const { rows } = await database.query<{ subscription_id: number; event_id: string }>(
    `with given_up as (
       delete from bus.dead_letter_calls c using (${keysSql}) k where ${isKey} and c.dead_at < now() - interval '1 day'
       returning c.subscription_id, c.event_id
     ), postponed as (
       update bus.dead_letter_calls c set error_count = c.error_count + 1,
         next_call_at = clock_timestamp() + least(300, 2 ^ least(c.error_count, 9)) * interval '1 second'
       from (${keysSql}) k where ${isKey} and c.dead_at >= now() - interval '1 day'
     )
     select subscription_id, event_id from given_up`,
    keysOf(calls),
  )
  return rows.map((row) => ({ subscriptionId: row.subscription_id, eventId: row.event_id }))
}

/** The alert that a subscription wants: at so many dead letters within this time. */
export interface WantedAlert {
  readonly subscriptionId: number
  readonly count: number
  readonly perSeconds: number
}

/** An alert that this process is to raise. */
export interface ClaimedAlert {
  readonly subscriptionId: number
  /** When the oldest of the dead letters became one. */
  readonly firstAt: Date
}

/**
 * Claims the alerts of some subscriptions for a minute: where one has collected so many dead letters, and its alert has not been raised in this
 * time, or was raised and not told yet. Counts no further than the limit. Locks the rows of the alerts, in the order of the subscriptions.
 */
export async function claimAlerts(
  database: Queries,
  wanted: readonly WantedAlert[],
): Promise<readonly ClaimedAlert[]> {
  if (wanted.length === 0) return []
  const { rows } = await database.query<{ subscription_id: number; first_at: Date }>(
    `with wanted as materialized (
       select * from unnest($1::int[], $2::int[], $3::int[]) as w (subscription_id, letter_count, per_seconds)
     ), recent as materialized (
       select w.subscription_id, r.first_at from wanted w
       cross join lateral (
         select min(f.failed_at) as first_at, count(*) as letter_count from (
           select f.failed_at from bus.failing f
           where f.subscription_id = w.subscription_id and f.state <> 'retrying'
             and f.failed_at > clock_timestamp() - w.per_seconds * interval '1 second'
           order by f.failed_at desc, f.event_id desc limit w.letter_count) f
       ) r
       where r.letter_count >= w.letter_count
     ), raised as (
       insert into bus.dead_letter_alerts as a (subscription_id, first_at, next_call_at)
       select r.subscription_id, r.first_at, clock_timestamp() + interval '1 minute' from recent r order by r.subscription_id
       on conflict (subscription_id) do update
         set raised_at = clock_timestamp(), first_at = excluded.first_at, error_count = 0, next_call_at = excluded.next_call_at
         where a.next_call_at is null and a.raised_at <= clock_timestamp() - interval '1 second' * (
           select w.per_seconds from wanted w where w.subscription_id = a.subscription_id)
       returning subscription_id, first_at
     ), left_over as (
       update bus.dead_letter_alerts a set next_call_at = clock_timestamp() + interval '1 minute'
       from (
         select d.subscription_id from bus.dead_letter_alerts d
         where d.subscription_id = any($1::int[]) and d.next_call_at <= clock_timestamp() for update skip locked
       ) n
       where a.subscription_id = n.subscription_id
       returning a.subscription_id, a.first_at
     )
     select subscription_id, first_at from raised union all select subscription_id, first_at from left_over`,
    [
      wanted.map(({ subscriptionId }) => subscriptionId),
      wanted.map(({ count }) => count),
      wanted.map(({ perSeconds }) => perSeconds),
    ],
  )
  return rows.map((row) => ({ subscriptionId: row.subscription_id, firstAt: row.first_at }))
}

/** Locks alerts in the order in which they are claimed. */
const lockedAlertsSql = `select d.subscription_id from bus.dead_letter_alerts d
   where d.subscription_id = any($1::int[]) order by d.subscription_id for update`

/** Alerts have been told. */
export async function endAlerts(database: Queries, subscriptionIds: readonly number[]): Promise<void> {
  if (subscriptionIds.length === 0) return
  await database.query(
    `update bus.dead_letter_alerts a set next_call_at = null
     from (${lockedAlertsSql}) n where a.subscription_id = n.subscription_id`,
    [subscriptionIds],
  )
}

/** Alerts that could not be told are told later. */
export async function postponeAlerts(database: Queries, subscriptionIds: readonly number[]): Promise<void> {
  if (subscriptionIds.length === 0) return
  await database.query(
    `update bus.dead_letter_alerts a set error_count = a.error_count + 1,
       next_call_at = clock_timestamp() + least(300, 2 ^ least(a.error_count, 9)) * interval '1 second'
     from (${lockedAlertsSql}) n where a.subscription_id = n.subscription_id`,
    [subscriptionIds],
  )
}
