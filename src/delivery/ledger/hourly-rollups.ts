import type { Database } from '../../database/database.ts'

/**
 * Adds up the minutes of hours that are over, after the last hour that was added up, for up to a day of them. Returns whether it wrote
 * any. Rows that come later than two minutes after their hour are not counted.
 * Repeating: the same hours get the same sums.
 */
export async function rollUpHours(database: Pick<Database, 'query'>): Promise<boolean> {
  const { rows } = await database.query<{ count: number }>(
    `with span as materialized (
       select f.low, least(f.low + interval '1 day', date_trunc('hour', now() - interval '2 minutes', 'UTC')) as high
       from (
         select date_trunc('hour', min(r.minute), 'UTC') as low from bus.rollups r
         where r.minute >= coalesce((select max(h.hour) + interval '1 hour' from bus.hourly_rollups h), '-infinity')
       ) f
     ), minutes as materialized (
       select date_trunc('hour', r.minute, 'UTC') as hour, r.*
       from span s join bus.rollups r on r.minute >= s.low and r.minute < s.high
     ), written as (
       insert into bus.hourly_rollups (hour, subscription_id, published, delivered, failed, dead, expired, wait_bins, run_bins)
       select c.*, coalesce(w.bins, '{}'), coalesce(u.bins, '{}')
       from (
         select m.hour, m.subscription_id, sum(m.published), sum(m.delivered), sum(m.failed), sum(m.dead), sum(m.expired)
         from minutes m group by 1, 2
       ) c
       left join (${binSums('wait_bins')}) w using (hour, subscription_id)
       left join (${binSums('run_bins')}) u using (hour, subscription_id)
       on conflict (hour, subscription_id) do update set published = excluded.published, delivered = excluded.delivered, failed = excluded.failed,
         dead = excluded.dead, expired = excluded.expired, wait_bins = excluded.wait_bins, run_bins = excluded.run_bins
       returning 1
     )
     select count(*)::int as count from written`,
  )
  return (rows[0]?.count ?? 0) > 0
}

function binSums(column: 'wait_bins' | 'run_bins'): string {
  return `select s.hour, s.subscription_id, array_agg(s.sum order by s.bin) as bins
    from (
      select m.hour, m.subscription_id, b.bin, sum(b.count)::bigint as sum
      from minutes m cross join lateral unnest(m.${column}) with ordinality as b (count, bin) group by 1, 2, 3
    ) s group by 1, 2`
}

/** How long the hours are kept. */
const retention = '400 days'

/** Deletes rows that are older than they are kept. */
export async function pruneHours(database: Pick<Database, 'query'>): Promise<void> {
  await database.query(`delete from bus.hourly_rollups where hour < now() - interval '${retention}'`)
  await database.query(`delete from bus.tenant_rollups where hour < now() - interval '${retention}'`)
}
