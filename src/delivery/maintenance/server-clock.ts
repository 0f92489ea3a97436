import type { Database } from '../../database/database.ts'
import { deadLetterQueueName, queueName } from '../jobs/queues.ts'

/** Steps of the server's clock below this are waited out. */
const toleratedSeconds = 2

/** A time that no clock had shown, had it never been set back. In SQL. */
export const tooFarAhead = `now() + interval '${toleratedSeconds} s'`

/** Notices when the clock of the server is set: after a failover to a server with another clock, or by hand. */
export interface ServerClock {
  /**
   * Takes what the clock said, in milliseconds, at some moment between two of `performance.now()`. Gives by how many
   * milliseconds it was set since the last time, negative when it went back, 0 when it just went on.
   */
  note: (clockMs: number, askedAt: number, answeredAt: number) => number
}

export function createServerClock(): ServerClock {
  /** What the clock was ahead of this process's, at least and at most. */
  let ahead: { readonly min: number; readonly max: number } | undefined
  return {
    note(clockMs, askedAt, answeredAt) {
      const before = ahead
      ahead = { min: clockMs - answeredAt, max: clockMs - askedAt }
      if (before === undefined) return 0
      const toleratedMs = toleratedSeconds * 1000
      if (ahead.min > before.max + toleratedMs) return ahead.min - before.max
      if (ahead.max < before.min - toleratedMs) return ahead.max - before.min
      return 0
    },
  }
}

/**
 * Makes the times of a queue's jobs fit a clock that was set.
 *
 * Set back, jobs that were waiting would wait until it has caught up, with the keys that they stand for, and a dead worker would not be
 * missed before: those that were inserted, or failed, at a time that is yet to come are moved back together, so that their delays and
 * their order stay. Set forward, live workers would seem dead. Either way, the jobs that are active get a new heartbeat: who is
 * alive confirms it, who is dead is missed when it has run out. pg-boss's own times of its last look after the queue are taken
 * back, else it would not look before they have come.
 *
 * Two statements; rows that somebody else has locked are being settled, and are passed over. Doing it twice changes nothing more.
 *
 * @param setMs - by how much the clock was set, where that is known; else 0
 * @returns the number of jobs that had waited for a time of the clock before
 */
export async function fitToClock(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  subscription: string,
  setMs: number,
): Promise<number> {
  const { rows } = await executor.query<{ count: number }>(
    `with waiting as materialized (
       select id, greatest(created_on, started_on) as known_at from ${executor.bossSchema}.job
       where name = $1 and state < 'active' and greatest(created_on, started_on) > ${tooFarAhead}
       for update skip locked
     ), back as materialized (
       select max(known_at) - now() as by from waiting
     ), moved as (
       update ${executor.bossSchema}.job j set
         -- One that was put back since has its time by the clock of today.
         start_after = case when j.start_after >= w.known_at then j.start_after - back.by else j.start_after end,
         created_on = case when j.created_on > now() then j.created_on - back.by else j.created_on end,
         started_on = case when j.started_on > now() then j.started_on - back.by else j.started_on end
       from waiting w cross join back
       where j.name = $1 and j.id = w.id
       returning 1
     ), active as materialized (
       select id from ${executor.bossSchema}.job
       where name = $1 and state = 'active'
         and (heartbeat_on > ${tooFarAhead}
           or ($2::float8 > 0 and least(heartbeat_on, started_on) < now() - $2 * interval '1 millisecond'))
       for update skip locked
     ), touched as (
       update ${executor.bossSchema}.job j set heartbeat_on = now(), started_on = now()
       from active a where j.name = $1 and j.id = a.id
     )
     select count(*)::int as count from moved`,
    [queueName(subscription), setMs],
  )
  // In the order of the names, as pg-boss locks them.
  await executor.query(
    `update ${executor.bossSchema}.queue q set
       monitor_claim_on = case when q.monitor_claim_on <= now() then q.monitor_claim_on end,
       monitor_on = case when q.monitor_on <= now() then q.monitor_on end,
       maintain_on = case when q.maintain_on <= now() then q.maintain_on end
     from (
       select name from ${executor.bossSchema}.queue
       where name = any($1::text[]) and greatest(monitor_claim_on, monitor_on, maintain_on) > now()
       order by name for no key update
     ) o where o.name = q.name`,
    [[queueName(subscription), deadLetterQueueName(subscription)]],
  )
  return rows[0]?.count ?? 0
}
