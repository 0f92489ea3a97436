import { locks } from './doorbell.ts'

/**
 * Where the positions of events with an ordering key begin, 2^61, and those of scheduled ones, 2^62. The trigger that
 * writes them has the same numbers.
 */
export const orderedPositions = 2_305_843_009_213_693_952n
const scheduledPositions = 4_611_686_018_427_387_904n

/** A relay that stops in the middle of a claim gives the order back after this long: the server ends its session. */
const idleInClaimSeconds = 10

/** Whether events with an ordering key are ready, or scheduled and due. */
export const orderedReadySql = `(
      exists (select from bus.outbox where position >= ${orderedPositions} and position < ${scheduledPositions})
      or exists (select from bus.outbox where available_at <= clock_timestamp() and ordering_key is not null))`

/**
 * The claim of events with an ordering key: of all relays one at a time, under a lock that is held until its
 * transaction has ended, and always from the very first one, so that no claim sees an event without those that were
 * committed before it was published. Who does not get the lock claims nothing.
 *
 * The lock is taken in a statement before the claim: each has a snapshot of its own, so the claim sees what the last
 * holder left. Scheduled events whose time has come get a place behind all that are there. No rows are skipped: only
 * holders of the lock lock them.
 *
 * Gives the rows, then the state.
 */
export function orderedClaimSql(claimSize: number): string {
  const held = `current_setting('bus.order_held')::boolean`
  return `begin isolation level read committed; set local synchronous_commit = off;
set local idle_in_transaction_session_timeout = '${idleInClaimSeconds}s';
select set_config('bus.order_held', pg_try_advisory_xact_lock(${locks.namespace}, ${locks.order})::text, true);
with due as (
  delete from bus.outbox where position = any(array(
    select position from bus.outbox
    where ${held} and available_at <= clock_timestamp() and ordering_key is not null
    order by available_at, position limit ${claimSize}))
  returning position, event_id, tenant_id, type, payload_bytes, ordering_key, available_at
)
insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key)
overriding system value
select nextval('bus.outbox_position_seq') + ${orderedPositions}, d.event_id, d.tenant_id, d.type, d.payload_bytes, d.ordering_key
from (select * from due order by available_at, position) d;
with claimed as (
  delete from bus.outbox where position = any(array(
    select position from bus.outbox
    where ${held} and position >= ${orderedPositions} and position < ${scheduledPositions}
    order by position limit ${claimSize}))
  returning position, event_id, tenant_id, type, payload_bytes, ordering_key, routed_through
)
select * from claimed order by position;
select
  false as ordered_ready,
  not ${held} as order_taken,
  null as next_due_seconds,
  (select count(*) || '/' || coalesce(sum(revision), 0) from bus.subscriptions) as registry_stamp`
}
