import type { ClaimFloor } from './claim-floors.ts'
import { locks } from '../../database/locks.ts'
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
} from './claim-sql.ts'

export { orderedPositions } from './claim-sql.ts'

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
