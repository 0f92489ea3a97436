import type { Database } from '../../../database/database.ts'

/**
 * Since when the first event of each of some subscriptions is due that may run now: rows of `id` and `due`, null where none waits. Retries and
 * scheduled events count from their time. A first attempt that was requeued counts from the time in its job's id. What waits in the background,
 * for a replay or a catch-up, does not count: it may wait; and what was held back for a catch-up counts from its end.
 *
 * One entry of pg-boss's index (name, state, blocked, start_after) is read for each state, three queues at a time, after those of jobs in the
 * background: some thousand at most, see src/operations/replay/background.ts.
 */
export function queueLagSql(
  { bossSchema }: Pick<Database, 'bossSchema'>,
  subscriptions: readonly { readonly id: number; readonly name: string }[],
): string {
  // Names of subscriptions are letters, digits, dots, hyphens and underscores.
  const queues = subscriptions.map(({ id, name }) => `(${id}, 'bus.${name.replaceAll("'", "''")}')`)
  return `
select (r.lag->>'id')::int as id, (extract(epoch from (r.lag->>'due')::timestamptz) * 1000)::float8 as due_ms
from bus.read_each(array(
  select format($lag$
    select %s as id, min(j.due) as due
    from (values ('created'), ('retry')) p (state)
    cross join lateral (
      select greatest(%L, case when q.retry_count = 0 and substr(q.id::text, 15, 1) = '8' and substr(q.id::text, 20, 1) = 'b'
        then least(q.start_after, to_timestamp(bus.uuid_ms(q.id) / 1000.0)) else q.start_after end) as due
      from ${bossSchema}.job q
      where q.name = %L and not q.blocked and q.state in ('created', 'retry') and q.state = p.state::${bossSchema}.job_state
        and q.start_after <= now() and not bus.is_background_job(q.priority, q.group_id, q.data)
      order by q.start_after limit 1
    ) j
  $lag$, s.id, b.catch_up_ended_at, s.queue)
  from (values ${queues.join(', ')}) s (id, queue) left join bus.subscriptions b on b.id = s.id
)) as r (lag)`
}
