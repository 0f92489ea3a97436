import type { Database } from '../../../database/database.ts'
import { tooFarAhead } from './job-times.ts'

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

/** Only two references to the queue, because planning each of them, with its dozen indexes, takes most of the time. */
export function pollQueueSql(
  { bossSchema }: Pick<Database, 'bossSchema'>,
  queue: string,
  floor: PollFloor | undefined,
): string {
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
