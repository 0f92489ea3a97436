import type { Database } from '../../../database/database.ts'

/**
 * Counts the waiting jobs of each subscription, and their events without those of keys: rows of `id`, `jobs` and `events`. At most
 * `maxJobs` jobs of each are counted. $1 is the name of the only subscription to count, or null.
 */
export function countWaitingJobsSql({ bossSchema }: Pick<Database, 'bossSchema'>, maxJobs: number): string {
  return `
    select (r.counted->>'id')::int as id, (r.counted->>'jobs')::bigint as jobs, (r.counted->>'events')::bigint as events
    from bus.read_each(array(
      select format($counted$
        select %s as id, count(*) as jobs,
          coalesce(sum(jsonb_array_length(j.data->'eventIds')) filter (where not j.data ? 'keyId'), 0) as events
        from (
          select data from ${bossSchema}.job where name = %L and state < 'active' and not blocked
          order by priority desc, created_on limit ${maxJobs}
        ) j
      $counted$, s.id, 'bus.' || s.name)
      from bus.subscriptions s where $1::text is null or s.name = $1
    )) as r (counted)`
}
