import { locks } from '../../database/locks.ts'
import { beginWriting } from '../../database/session-settings.ts'
import type { ClaimFloor } from './claim-floors.ts'

/** Maximum number of scheduled events in one claim: other events wait for it. */
const dueClaimSize = 500

/**
 * Claims rows in position order, from the floor up to the positions of keyed events. Locks only the claimed rows; rows
 * that another relay has locked are skipped (SKIP LOCKED).
 *
 * Returns the rows, then the state. The state's statement is the later one, so it sees every subscription that the
 * claimed events were published to.
 */
export function claimSql(floor: ClaimFloor, patience: ClaimPatience): string {
  const secondsUntil = (condition: string): string =>
    `(select extract(epoch from available_at - clock_timestamp()) from bus.outbox where ${condition} order by available_at limit 1)`
  return `${beginClaimSql(patience)};
${floor.level === 'recent' ? '' : `${writersSql};`}
${claimRowsSql(floor.position)};
select
  exists (select from bus.outbox where position >= ${orderedFrom(floor)} and position < ${scheduledPositions}) as ordered_ready,
  ${secondsUntil(scheduled(floor.due))} as due_seconds,
  ${secondsUntil(scheduledWithKey(floor))} as ordered_due_seconds,
  ${registryStampSql} as registry_stamp${floor.level === 'recent' ? '' : sweepColumns(floor)}`
}

/**
 * The open transactions that write to the outbox: see claim-floors.ts. Read before the claim, so that the claim sees
 * the rows of those that have ended.
 */
const writersSql = `
select virtualtransaction as writer from pg_locks
where locktype = 'relation' and relation = 'bus.outbox'::regclass and mode = 'RowExclusiveLock' and granted
  and database = (select oid from pg_database where datname = current_database())
  and pid is distinct from pg_backend_pid()`

/** Columns that only sweeps need. */
function sweepColumns(floor: ClaimFloor): string {
  const { candidate } = floor
  const isLeft = (condition: string): string => `exists (select from bus.outbox where ${condition})`
  const isClean =
    candidate === undefined
      ? 'false'
      : `not (${isLeft(`position >= ${floor.position} and position < ${candidate.position}`)}
    or ${isLeft(`position >= ${orderedFrom(floor)} and position < ${orderedPositions + candidate.position}`)}
    or ${isLeft(`${scheduled(floor.due)} and available_at < to_timestamp(${candidate.due})`)}
    or ${isLeft(`${scheduledWithKey(floor)} and available_at < to_timestamp(${candidate.due})`)})`
  return `,
  extract(epoch from pg_postmaster_start_time())::text as server,
  extract(epoch from clock_timestamp())::float8 as now,
  ${isClean} as is_clean,
  ${isLeft(`position >= ${floor.position} and position < ${orderedPositions}`)} as is_left_behind,
  array(
    select s.id from bus.subscriptions s
    where ${mayTakeHeld} and exists (select from bus.outbox o where o.subscription_id = s.id) order by s.id) as deferred_for`
}

/** The claim alone. */
export function claimRowsSql(floor: bigint): string {
  return `
with claimed as (
  delete from bus.outbox where position = any(array(
    select position from bus.outbox
    where position >= ${floor} and position < ${orderedPositions}
    order by position limit ${claimSize}
    for update skip locked))
  returning position, event_id, tenant_id, type, payload_bytes
)
select *, null as ordering_key from claimed order by position`
}

/**
 * Claims due events without an ordering key, earliest first. Rows that are being cancelled, or that another relay has
 * locked, are skipped.
 */
export function dueClaimSql(floor: ClaimFloor, patience: ClaimPatience): string {
  return `${beginClaimSql(patience)};
with claimed as (
  delete from bus.outbox where position = any(array(
    select position from bus.outbox
    where ${scheduled(floor.due)} and ${isDue}
    order by available_at limit ${dueClaimSize}
    for update skip locked))
  returning position, event_id, tenant_id, type, payload_bytes, available_at
)
select position, event_id, tenant_id, type, payload_bytes, null as ordering_key, (extract(epoch from available_at) * 1000)::float8 as due_ms
from claimed order by available_at, position;
select ${registryStampSql} as registry_stamp`
}

/**
 * Claims events with an ordering key: one relay at a time, under a lock held until its transaction has ended, and
 * always from the very first possible position, so that no claim sees an event without those that were committed before
 * it was published. A relay that does not get the lock claims nothing.
 *
 * The lock is taken in a statement before the claim: each statement has its own snapshot, so the claim sees the result
 * of the last holder. Due scheduled events are appended after the others. No other code of the bus takes these rows; if
 * somebody has locked some anyway, their keys are skipped in `careful` mode.
 *
 * Returns the rows, then the state.
 */
export function orderedClaimSql(floor: ClaimFloor, patience: ClaimPatience): string {
  const isHeld = `current_setting('bus.order_held')::boolean`
  const positions = patience === 'careful' ? unlockedPositions : firstPositions
  return `${beginClaimSql(patience)};
select set_config('bus.order_held', pg_try_advisory_xact_lock(${locks.namespace}, ${locks.order})::text, true);
with due as (
  delete from bus.outbox where position = any(array(
    ${positions(`${isHeld} and ${scheduledWithKey(floor)} and ${isDue}`, 'available_at, position')}))
  returning position, event_id, tenant_id, type, payload_bytes, ordering_key, available_at
)
insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key)
overriding system value
select nextval('bus.outbox_position_seq') + ${orderedPositions}, d.event_id, d.tenant_id, d.type, d.payload_bytes, d.ordering_key
from (select * from due order by available_at, position) d;
with claimed as (
  delete from bus.outbox where position = any(array(
    ${positions(`${isHeld} and position >= ${orderedFrom(floor)} and position < ${scheduledPositions}`, 'position')}))
  returning position, event_id, tenant_id, type, payload_bytes, ordering_key
)
select * from claimed order by position;
select
  not ${isHeld} as order_taken,
  ${registryStampSql} as registry_stamp`
}

const firstPositions = (condition: string, order: string): string =>
  `select position from bus.outbox where ${condition} order by ${order} limit ${claimSize}`

/**
 * Rows may be locked by somebody who cancels or repairs them: selects the rows of all other keys, among the first few
 * thousand.
 */
const unlockedPositions = (condition: string, order: string): string => `
    with seen as materialized (
      select position, tenant_id, ordering_key, available_at from bus.outbox where ${condition} order by ${order} limit ${10 * claimSize}
    ), free as materialized (
      select position from bus.outbox where position = any(array(select position from seen)) for update skip locked
    )
    select position from (
      select s.*, bool_and(f.position is not null) over (partition by s.tenant_id, s.ordering_key) as is_free
      from seen s left join free f using (position)
    ) k where is_free order by ${order} limit ${claimSize}`

/** Ordered subscriptions get what was held back for them when they have caught up with the log. */
const mayTakeHeld = `(s.catch_up_until is null or s.options->'ordered' is null)`

/** Takes events that were held back for a subscription, and returns whether there are more. */
export function heldClaimSql(
  subscriptionId: number,
  after: { readonly tenantId: string; readonly orderingKey: string } | undefined,
): string {
  const cursor =
    after === undefined ? 'null, null' : `${textLiteral(after.tenantId)}, ${textLiteral(after.orderingKey)}`
  return `${beginClaimSql('retry')};
select 0 as position, event_id, tenant_id, type, payload_bytes, ordering_key
from bus.subscriptions s cross join lateral bus.take_held_events(s.id, ${claimSize}, ${cursor})
where s.id = ${subscriptionId} and ${mayTakeHeld};
select
  exists (
    select from bus.outbox o join bus.subscriptions s on s.id = o.subscription_id
    where o.subscription_id = ${subscriptionId} and ${mayTakeHeld}) as is_left,
  ${registryStampSql} as registry_stamp`
}

/** Contains no quotes or backslashes, so that it has the same meaning under every server setting. */
function textLiteral(text: string): string {
  return `convert_from(decode('${Buffer.from(text).toString('hex')}', 'hex'), 'UTF8')`
}

/** Maximum number of events in one claim: enough to spread the cost of a transaction, few enough to keep it short. */
export const claimSize = 1000

/**
 * The positions of events with an ordering key start at 2^61, those of scheduled events at 2^62. The trigger that
 * writes them uses the same numbers. Events held back for one subscription have positions below 0.
 */
export const orderedPositions = 2_305_843_009_213_693_952n

const scheduledPositions = 4_611_686_018_427_387_904n

/** The server ends the session of a relay that is silent for this long during a claim, which releases its locks. */
const idleInClaimSeconds = 10

/**
 * How long a claim waits for another transaction's lock, in milliseconds. Events whose lock is held for longer are held
 * back for the subscription that needs it, and everything else continues. `careful` applies to each subscription in
 * turn; `retry` to occasional retries of held events.
 */
const lockTimeoutsMs = { normal: 100, careful: 20, retry: 20 } as const

export type ClaimPatience = keyof typeof lockTimeoutsMs

/**
 * Begins a claim. The commit does not wait for the disk: if a server crash undoes a claim, it is made again. The rows
 * are read through the intended index, regardless of statistics, because these tables are empty one moment and full the
 * next. The lock waits for a subscription that begins or ends to catch up: every claim is before or after that.
 */
function beginClaimSql(patience: ClaimPatience): string {
  return `${beginWriting};
select pg_advisory_xact_lock_shared(${locks.namespace}, ${locks.catchUp});
select set_config('synchronous_commit', 'off', true), set_config('idle_in_transaction_session_timeout', '${idleInClaimSeconds}s', true),
  set_config('lock_timeout', '${lockTimeoutsMs[patience]}ms', true), set_config('enable_seqscan', 'off', true),
  set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)`
}

const registryStampSql = `(select count(*) || '/' || coalesce(sum(revision), 0) from bus.subscriptions)`

/** Whether an event is due, as an index condition: evaluated once per statement. */
const isDue = `available_at <= (select clock_timestamp())`

/** Scheduled events without an ordering key. */
const scheduled = (due: number): string => `available_at >= to_timestamp(${due}) and ordering_key is null`

/** Scheduled events with an ordering key. After a server crash all of them may be there again, because claims are undone. */
const scheduledWithKey = (floor: ClaimFloor): string =>
  `available_at >= ${onSameServer(floor, `to_timestamp(${floor.orderedDue})`, `to_timestamp(0)`)} and ordering_key is not null`

/** The first position that an event with an ordering key may have. */
const orderedFrom = (floor: ClaimFloor): string =>
  onSameServer(floor, String(orderedPositions + floor.orderedPosition), String(orderedPositions))

/** Returns the first value while the server for which the floor holds is running, otherwise the second. */
function onSameServer({ server }: ClaimFloor, same: string, other: string): string {
  if (same === other || server === '') return other
  return `(select case when extract(epoch from pg_postmaster_start_time())::text = '${server}' then ${same} else ${other} end)`
}
