import type { SubscriptionContext } from './subscription-context.ts'

/** Deferred jobs that are made due at a time at most. */
const maxJobs = 50

/** Deferred events that are made due at a time, about. */
const eventCount = 50

/** The key of a tenant's own flow, by which its deferred jobs are found: see plan-jobs.ts. */
export function tenantFlowKey(tenantId: string): string {
  return `=${tenantId}`
}

/** Makes the first deferred jobs of a tenant due, up to a batch. Returns their number. */
export async function releaseDeferredJobs(
  { database, queue }: SubscriptionContext,
  tenantId: string,
): Promise<number> {
  const { rows } = await database.query(
    `update ${database.bossSchema}.job set start_after = now()
     where name = $1 and state = 'created' and id in (
       select id from (
         select id, sum(jsonb_array_length(data->'eventIds')) over (order by start_after, id)
           - jsonb_array_length(data->'eventIds') as before
         from (
           select id, data, start_after from ${database.bossSchema}.job
           where name = $1 and singleton_key = $2 and state = 'created' and start_after > now()
           order by start_after, id limit ${maxJobs}
         ) first
       ) counted where before < ${eventCount})
     returning 1`,
    [queue, tenantFlowKey(tenantId)],
  )
  return rows.length
}
