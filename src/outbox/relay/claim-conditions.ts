import type { ClaimFloor } from './claim-floors.ts'
import { beginWriting } from '../../database/session-settings.ts'

/** Events in one claim: enough to spread the cost of a transaction, few enough to keep it short. */
export const claimSize = 1000

/**
 * Where the positions of events with an ordering key begin, 2^61, and those of scheduled ones, 2^62. The trigger that
 * writes them has the same numbers. What is held for one subscription stands below 0.
 */
export const orderedPositions = 2_305_843_009_213_693_952n
export const scheduledPositions = 4_611_686_018_427_387_904n

/** A relay that is silent in the middle of a claim gives its locks back after this long: the server ends its session. */
const idleInClaimSeconds = 10

/**
 * How long a claim waits for a lock that somebody else holds, in milliseconds. What is locked for longer is held for the
 * subscription that needs it, and all else goes on. `careful`: for each subscription in turn; `retry`: now and then.
 */
const lockTimeoutsMs = { normal: 100, careful: 20, retry: 20 } as const

export type ClaimPatience = keyof typeof lockTimeoutsMs

/**
 * Begins a claim. The commit is not waited for to reach the disk: a claim that a crash of the server undoes is made again.
 * What is read is read through the index that is meant for it, whatever the statistics say of tables that are empty one moment
 * and full the next.
 */
export function beginClaimSql(patience: ClaimPatience): string {
  return `${beginWriting};
select set_config('synchronous_commit', 'off', true), set_config('idle_in_transaction_session_timeout', '${idleInClaimSeconds}s', true),
  set_config('lock_timeout', '${lockTimeoutsMs[patience]}ms', true), set_config('enable_seqscan', 'off', true),
  set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)`
}

export const registryStampSql = `(select count(*) || '/' || coalesce(sum(revision), 0) from bus.subscriptions)`

/** What has come due, as an index condition: evaluated once a statement. */
export const isDue = `available_at <= (select clock_timestamp())`

/** Scheduled events without an ordering key. */
export const scheduled = (due: number): string =>
  `available_at >= to_timestamp(${due}) and ordering_key is null`

/** Those with one. After a crash of the server all may be there: claims are undone. */
export const scheduledWithKey = (floor: ClaimFloor): string =>
  `available_at >= ${onSameServer(floor, `to_timestamp(${floor.orderedDue})`, `to_timestamp(0)`)} and ordering_key is not null`

/** The first position with an ordering key that may be there. */
export const orderedFrom = (floor: ClaimFloor): string =>
  onSameServer(floor, String(orderedPositions + floor.orderedPosition), String(orderedPositions))

/** The first value while the server runs that the floor is true for, else the second. */
function onSameServer({ server }: ClaimFloor, same: string, other: string): string {
  if (same === other || server === '') return other
  return `(select case when extract(epoch from pg_postmaster_start_time())::text = '${server}' then ${same} else ${other} end)`
}
