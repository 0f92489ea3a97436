import type { Database } from '../../../database/database.ts'

/**
 * Those of some subscriptions for which nothing waits: no job, no event of a key, none that is held back. One entry of an index is read for
 * each state of a queue.
 */
export function idleQueuesSql(
  { bossSchema }: Pick<Database, 'bossSchema'>,
  subscriptions: readonly { readonly id: number; readonly name: string }[],
): string {
  // Names of subscriptions are letters, digits, dots, hyphens and underscores.
  const queues = subscriptions.map(({ id, name }) => `(${id}, '${name.replaceAll("'", "''")}')`)
  return `
with queue (id, name) as (values ${queues.join(', ')})
select q.name from queue q
join lateral (
  select (r.found->>'waits')::boolean as waits from bus.read_each(array[format($idle$
    select exists (select from ${bossSchema}.job j where j.name = %1$L and j.state < 'active')
      or exists (select from ${bossSchema}.job j where j.name = %1$L and j.state = 'active') as waits
  $idle$, 'bus.' || q.name)]) as r (found)
) j on not j.waits
where not exists (select from bus.ordered_keys k where k.subscription_id = q.id)
  and not exists (select from bus.outbox o where o.subscription_id = q.id)`
}
