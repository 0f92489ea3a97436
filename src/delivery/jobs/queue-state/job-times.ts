import type { Database } from '../../../database/database.ts'
import { deadLetterQueueName, queueName } from '../queues.ts'

/** Smaller steps of the server's clock are ignored. */
export const toleratedSeconds = 2

/** In SQL: a time that can only be in the database if the clock was set back. */
export const tooFarAhead = `now() + interval '${toleratedSeconds} s'`

/**
 * Adjusts the times of a queue's jobs to a clock that was set.
 *
 * If it was set back, waiting jobs and their keys would wait until the clock has caught up, and a dead worker would not
 * be detected before then. So jobs that were inserted, or failed, at a future time are moved back together, which
 * preserves their delays and their order. If it was set forward, live workers would seem dead. In both cases active
 * jobs get a new heartbeat: live workers renew it, and dead ones are detected when it expires. pg-boss's times of its
 * last maintenance of the queue are reset, because otherwise it would not maintain the queue before those times.
 *
 * Two statements. Rows that another transaction has locked are being settled, and are skipped. Repeating it changes
 * nothing.
 *
 * @param setMs - by how much the clock was set, if known; otherwise 0
 * @returns the number of jobs that waited for a time of the previous clock
 */
export async function adjustJobTimes(
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
  // In the order of the names, like pg-boss's own locks.
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
