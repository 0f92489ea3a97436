import type { ClaimFloor } from './claim-floors.ts'
import { beginWriting } from '../../database/session-settings.ts'

/** Maximum number of events in one claim: enough to spread the cost of a transaction, few enough to keep it short. */
export const claimSize = 1000

/**
 * The positions of events with an ordering key start at 2^61, those of scheduled events at 2^62. The trigger that
 * writes them uses the same numbers. Events held back for one subscription have positions below 0.
 */
export const orderedPositions = 2_305_843_009_213_693_952n
export const scheduledPositions = 4_611_686_018_427_387_904n

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
 * next.
 */
export function beginClaimSql(patience: ClaimPatience): string {
  return `${beginWriting};
select set_config('synchronous_commit', 'off', true), set_config('idle_in_transaction_session_timeout', '${idleInClaimSeconds}s', true),
  set_config('lock_timeout', '${lockTimeoutsMs[patience]}ms', true), set_config('enable_seqscan', 'off', true),
  set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)`
}

export const registryStampSql = `(select count(*) || '/' || coalesce(sum(revision), 0) from bus.subscriptions)`

/** Whether an event is due, as an index condition: evaluated once per statement. */
export const isDue = `available_at <= (select clock_timestamp())`

/** Scheduled events without an ordering key. */
export const scheduled = (due: number): string =>
  `available_at >= to_timestamp(${due}) and ordering_key is null`

/** Scheduled events with an ordering key. After a server crash all of them may be there again, because claims are undone. */
export const scheduledWithKey = (floor: ClaimFloor): string =>
  `available_at >= ${onSameServer(floor, `to_timestamp(${floor.orderedDue})`, `to_timestamp(0)`)} and ordering_key is not null`

/** The first position that an event with an ordering key may have. */
export const orderedFrom = (floor: ClaimFloor): string =>
  onSameServer(floor, String(orderedPositions + floor.orderedPosition), String(orderedPositions))

/** Returns the first value while the server for which the floor holds is running, otherwise the second. */
function onSameServer({ server }: ClaimFloor, same: string, other: string): string {
  if (same === other || server === '') return other
  return `(select case when extract(epoch from pg_postmaster_start_time())::text = '${server}' then ${same} else ${other} end)`
}
