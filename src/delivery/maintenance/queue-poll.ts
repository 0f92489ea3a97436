import type { Database } from '../../database/database.ts'
import { tooFarAhead } from './server-clock.ts'
import {
  stateColumns,
  toState,
  type StateRow,
  type SubscriptionState,
} from '../flow-control/subscription-state.ts'

/**
 * A job carries the time at which its inserting transaction began. If that transaction had not committed at the time of
 * a poll, its jobs may be this much below the floor; older ones are found by the next poll without a floor.
 */
const lateCommitSeconds = 2

/** In microseconds, and parsed alike under every setting of the session. */
const timeFormat = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'

/** Where a poll of a queue starts: no live job is before it, except those that were committed late. */
export interface PollFloor {
  readonly waiting: string
  readonly active: string
}

/** The result of polling a queue. */
export interface QueuePoll {
  readonly name: string
  /** Whether a job may run now. */
  readonly ready: boolean
  /** Milliseconds until the next waiting job may run; undefined if there is none. */
  readonly dueMs: number | undefined
  /** Whether a worker has been silent for longer than its jobs allow. */
  readonly lapsed: boolean
  /** Whether a job was inserted, started or touched at a future time: the server's clock was set back since. */
  readonly isAhead: boolean
  /** The floor of the next poll. */
  readonly floor: PollFloor
  readonly state: SubscriptionState
}

/** The results of one statement, and the server's time when it answered. */
export interface PollResult {
  readonly queues: readonly QueuePoll[]
  readonly clockMs: number | undefined
}

interface PollRow extends StateRow, Record<string, unknown> {
  readonly clock_ms: number
  readonly found: {
    readonly name: string
    readonly ready: boolean
    readonly due_seconds: number | null
    readonly lapsed: boolean
    readonly ahead: boolean
    readonly waiting_floor: string
    readonly active_floor: string
  }
}

/**
 * Polls queues in one statement that holds the locks of only a few of them at a time, and reads the states of their
 * subscriptions.
 *
 * The next job of each state is the first entry of pg-boss's index (name, state, blocked, start_after), however many
 * jobs wait. While an old snapshot is held, the index keeps the entries of deleted jobs, and each poll would read more
 * of them; so a poll starts at the floor that the last one returned.
 */
export async function pollQueues(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  queues: readonly { readonly name: string; readonly floor: PollFloor | undefined }[],
): Promise<PollResult> {
  const { rows } = await executor.query<PollRow>(
    `select (extract(epoch from clock_timestamp()) * 1000)::float8 as clock_ms, r.found, ${stateColumns}
     from bus.read_each($1::text[]) as r (found) join bus.subscriptions s on s.name = substr(r.found->>'name', 5)`,
    [queues.map(({ name, floor }) => pollSql(executor.bossSchema, name, floor))],
  )
  return {
    clockMs: rows[0]?.clock_ms,
    queues: rows.map((row) => {
      const { name, ready, due_seconds, lapsed, ahead, waiting_floor, active_floor } = row.found
      const dueMs = due_seconds === null ? undefined : due_seconds * 1000
      const floor = { waiting: waiting_floor, active: active_floor }
      return { name, ready, dueMs, lapsed, isAhead: ahead, floor, state: toState(row) }
    }),
  }
}

/** Only two references to the queue, because planning each of them, with its dozen indexes, takes most of the time. */
function pollSql(bossSchema: string, queue: string, floor: PollFloor | undefined): string {
  // Repeats the states of the index predicate, because the planner cannot derive them from a variable.
  const jobs = `${bossSchema}.job where name = '${queue}' and not blocked and state in ('created', 'retry', 'active', 'failed')`
  return `
select '${queue}' as name, coalesce(w.first <= now(), false) as ready,
  extract(epoch from w.next - clock_timestamp())::float8 as due_seconds,
  coalesce(a.lapsed, false) as lapsed, coalesce(w.ahead or a.ahead, false) as ahead,
  to_char(w.floor at time zone 'utc', '${timeFormat}') as waiting_floor,
  to_char(least(w.floor, a.first) at time zone 'utc', '${timeFormat}') as active_floor
from (
  select min(j.start_after) as first, least(min(j.start_after), now() - interval '${lateCommitSeconds} s') as floor,
    min(j.start_after) filter (where j.start_after > now()) as next, bool_or(j.start_after > now() and j.known_at > ${tooFarAhead}) as ahead
  from (values ('created', '${floor?.waiting ?? '-infinity'}'), ('retry', '${floor?.waiting ?? '-infinity'}'), ('created', now()), ('retry', now())) p (state, start)
  cross join lateral (
    select start_after, greatest(created_on, started_on) as known_at from ${jobs}
      and state = p.state::${bossSchema}.job_state and start_after >= p.start
    order by start_after limit 1
  ) j
) w
cross join (
  select min(start_after) as first, bool_or(heartbeat_on > ${tooFarAhead}) as ahead,
    bool_or(heartbeat_on + heartbeat_seconds * interval '1 second' < clock_timestamp()) as lapsed
  from ${jobs} and state = 'active' and start_after >= '${floor?.active ?? '-infinity'}'
) a`
}
