import type { Database } from '../../database/database.ts'
import type { FailureOutput } from './job-claim.ts'
import type { JobData } from './job.ts'

/** A row that holds a dead letter. */
export interface DeadLetterRow extends Record<string, unknown> {
  readonly id: string
  readonly subscription: string
  readonly data: JobData
  readonly source_retry_count: number | null
  readonly source_output: (Partial<FailureOutput> & { readonly value?: { readonly message?: string } }) | null
  readonly created_on: Date
  readonly tenant_id: string | null
  readonly ordering_key: string | null
  readonly key_state: 'blocked' | 'parked' | null
}

/**
 * Reads the dead letters of all subscriptions or of one, and the events that are parked behind one, oldest first. It holds the locks of
 * only a few queues at a time.
 */
export async function readDeadLetters(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  subscription: string | undefined,
  limit: number,
): Promise<readonly DeadLetterRow[]> {
  const { rows } = await executor.query<DeadLetterRow>(
    `(select (r.job->>'id')::uuid as id, r.job->>'subscription' as subscription, r.job->'data' as data,
       (r.job->>'source_retry_count')::int as source_retry_count, nullif(r.job->'source_output', 'null') as source_output,
       (r.job->>'created_on')::timestamptz as created_on, r.job->>'tenant_id' as tenant_id,
       r.job->>'ordering_key' as ordering_key, r.job->>'key_state' as key_state, 0 as seq
     from bus.read_each(array(
       select format($job$
         select s.name as subscription, j.*, k.tenant_id, k.ordering_key, k.state as key_state
         from bus.subscriptions s
         cross join lateral (
           select id, data, source_retry_count, source_output, created_on from ${executor.bossSchema}.%I
           where name = 'bus.' || s.name || '.dead' and state < 'active'
           order by created_on, id limit %s) j
         left join bus.ordered_keys k on k.id = (j.data->>'keyId')::bigint
           and k.failed_event_id = (j.data->'eventIds'->>0)::uuid and k.state in ('blocked', 'parked')
         where %3$L is null or s.name = %3$L
         order by j.created_on, j.id limit %2$s
       $job$, t.table_name, $2::int, $1::text)
       -- Dead letters stand in one table, as a rule.
       from (
         select distinct q.table_name from ${executor.bossSchema}.queue q
         join bus.subscriptions s on q.name = 'bus.' || s.name || '.dead'
         where $1::text is null or s.name = $1
       ) t
     )) as r (job))
     union all
     (select w.event_id, s.name, jsonb_build_object('eventIds', jsonb_build_array(w.event_id)), null, null,
       greatest(e.created_at, k.failed_at), k.tenant_id, k.ordering_key, k.state, w.seq
     from bus.ordered_keys k
     join bus.subscriptions s on s.id = k.subscription_id
     join bus.ordered_events w on w.key_id = k.id and w.seq > k.done_seq and w.event_id <> k.failed_event_id
     left join bus.events e on e.id = w.event_id
     where k.failed_at is not null and k.state = 'parked' and ($1::text is null or s.name = $1)
     order by 6, w.seq limit $2)
     order by created_on, seq, id limit $2`,
    [subscription ?? null, limit],
  )
  return rows
}
