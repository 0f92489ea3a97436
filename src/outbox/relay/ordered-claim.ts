import {
  beginClaimSql,
  claimSize,
  isDue,
  orderedFrom,
  orderedPositions,
  registryStampSql,
  scheduledPositions,
  scheduledWithKey,
  type ClaimPatience,
} from './claim-conditions.ts'
import type { ClaimFloor } from './claim-floors.ts'
import { locks } from '../../database/locks.ts'

export { orderedPositions } from './claim-conditions.ts'

/**
 * The claim of events with an ordering key: of all relays one at a time, under a lock that is held until its
 * transaction has ended, and always from the very first one that may be there, so that no claim sees an event without those
 * that were committed before it was published. Who does not get the lock claims nothing.
 *
 * The lock is taken in a statement before the claim: each has a snapshot of its own, so the claim sees what the last
 * holder left. Scheduled events whose time has come get a place behind all that are there. Nobody else takes these
 * rows; where somebody has locked some all the same, their keys are passed over, with `careful`.
 *
 * Gives the rows, then the state.
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

/** Somebody has locked rows, to cancel or to mend them: those of all other keys, of the first some thousand. */
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
