import { defaultBossSchema } from '../database/boss-schema.ts'
import { deadJobsSql, unfinishedJobsSql } from '../delivery/jobs/test-jobs.ts'
import { counted } from '../foundation/counted.ts'
import type { TestDatabase } from './test-database.ts'

/** Where an event is: in one subscription, or before it is dispatched, in none. */
export interface EventState {
  readonly eventId: string
  readonly type: string
  /** Undefined if the event is not dispatched yet, and for states of the event as a whole. */
  readonly subscription: string | undefined
  readonly state:
    | 'published'
    | 'scheduled'
    | 'waiting'
    | 'retrying'
    | 'delivering'
    | 'waiting for its key'
    | 'blocked'
    | 'delivered'
    | 'expired'
    | 'dead'
    | 'cancelled'
  /** The failed attempts; for a delivered event, all attempts. */
  readonly attempts: number
  /** The error of the last attempt. */
  readonly reason: string | undefined
  /** Seconds until the next attempt. */
  readonly dueSeconds: number
}

/** States that an event leaves by itself. */
export const pendingStates: ReadonlySet<EventState['state']> = new Set([
  'published',
  'waiting',
  'retrying',
  'delivering',
  'waiting for its key',
])

/**
 * The states of events in one snapshot: an event that moves is seen in one place, not in none.
 *
 * @param condition - on rows of bus.events
 */
export async function readStates(
  { query }: TestDatabase,
  condition: string,
  values: readonly unknown[],
): Promise<EventState[]> {
  const rows = await query(
    `with e as materialized (select id, type from bus.events where ${condition}),
    job as (
      select j.subscription_id, j.subscription, x.id::uuid as event_id, j.state, j.data, j.output, j.retry_count,
        greatest(0, extract(epoch from j.start_after - clock_timestamp()))::float8 as due
      from ${unfinishedJobsSql(defaultBossSchema)} j
      cross join lateral jsonb_array_elements_text(j.data->'eventIds') x(id)
    )
    select e.id, e.type, null as subscription, case when o.available_at > clock_timestamp() then 'scheduled' else 'published' end as state,
      0 as attempts, null as reason, 0 as due
    from e join bus.outbox o on o.event_id = e.id
    union all
    select e.id, e.type, null, 'cancelled', 0, null, 0 from e join bus.cancellations c on c.event_id = e.id
    union all
    select e.id, e.type, s.name, case when d.expired then 'expired' else 'delivered' end, d.attempts, null, 0
    from e join bus.deliveries d on d.event_id = e.id join bus.subscriptions s on s.id = d.subscription_id
    union all
    select e.id, e.type, j.subscription,
      case when j.state = 'active' then 'delivering'
        when coalesce((j.data->>'attempts')::int, 0) + j.retry_count + (j.state = 'retry')::int > 0 then 'retrying' else 'waiting' end,
      coalesce((j.data->>'attempts')::int, 0) + j.retry_count + (j.state = 'retry')::int,
      coalesce(j.output->'failures', j.data->'failures')->-1->>'message', j.due
    from e join job j on j.event_id = e.id
    where not exists (select from bus.deliveries d where d.event_id = e.id and d.subscription_id = j.subscription_id)
    union all
    select e.id, e.type, j.subscription, 'dead',
      coalesce((j.source_output->>'attempts')::int, (j.data->>'attempts')::int, 0) ,
      coalesce(j.source_output->'failures'->-1->>'message', j.source_output->'value'->>'message'), 0
    from e
    join ${deadJobsSql(defaultBossSchema)} j on j.data->'eventIds' ? e.id::text
    union all
    select e.id, e.type, s.name, case when k.state in ('blocked', 'parked') then 'blocked' else 'waiting for its key' end, 0, null, 0
    from e
    join bus.ordered_events w on w.event_id = e.id
    join bus.ordered_keys k on k.id = w.key_id and w.seq > k.done_seq
    join bus.subscriptions s on s.id = k.subscription_id
    where not exists (select from job j where j.event_id = e.id and j.subscription_id = s.id)
      and e.id is distinct from k.failed_event_id
    order by 1, 3`,
    values,
  )
  return rows.map((row) => ({
    eventId: String(row['id']),
    type: String(row['type']),
    subscription: (row['subscription'] as string | null) ?? undefined,
    state: row['state'] as EventState['state'],
    attempts: Number(row['attempts']),
    reason: (row['reason'] as string | null) ?? undefined,
    dueSeconds: Number(row['due']),
  }))
}

/** One line for people. */
export function describeState({ subscription, state, attempts, reason, dueSeconds }: EventState): string {
  const parts = [
    state === 'published' ? 'published, not dispatched yet' : state,
    ...(attempts > 0 ? [`after ${counted(attempts, 'attempt')}`] : []),
    ...(dueSeconds > 0 ? [`next in ${dueSeconds.toFixed(1)} s`] : []),
    ...(reason === undefined ? [] : [`last: ${reason}`]),
  ]
  return `${subscription === undefined ? '' : `\`${subscription}\`: `}${parts.join(', ')}`
}
