import { limits } from '../../foundation/limits.ts'
import { assertObject, assertTextOption, integerOption, refuseUnknownKeys } from '../../foundation/options.ts'
import type { Database } from '../../database/database.ts'
import type { AttemptFailure } from '../attempts/failure.ts'
import type { JobData } from '../jobs/job.ts'
import type { FailureOutput } from '../jobs/job-claim.ts'

/** An event whose last attempt failed. */
export interface DeadLetter {
  /** The id of the event in the log. */
  readonly id: string
  readonly subscription: string
  /** The pg-boss job that is the dead letter, or the event's id if it was parked without an attempt. */
  readonly jobId: string
  /** The number of attempts. */
  readonly attempts: number
  /** The failures that are known: the first and the latest ones. */
  readonly failures: readonly AttemptFailure[]
  readonly deadAt: Date
  /**
   * Set while the event blocks its key, or is parked behind the event that does: release the key to deliver it. See
   * {@link BlockedKeys}.
   */
  readonly blockedKey: BlockedKeyName | undefined
}

/** Identifies a waiting key. */
export interface BlockedKeyName {
  readonly tenantId: string
  readonly orderingKey: string
  readonly state: 'blocked' | 'parked'
}

/** Reads the dead letters of all subscriptions. */
export interface DeadLetters {
  /** The dead letters, oldest first, up to `limit` (1 to 1,000, default 100); of one subscription if given. */
  list: (filter?: {
    readonly subscription?: string | undefined
    readonly limit?: number | undefined
  }) => Promise<DeadLetter[]>
}

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

export function createDeadLetters(database: Database): DeadLetters {
  return {
    async list(filter = {}) {
      assertObject('a filter like { subscription, limit }', filter)
      refuseUnknownKeys(filter, ['subscription', 'limit'], 'deadLetters.list')
      const { subscription, limit } = filter
      const count = integerOption('limit', limit, limits.listLimit)
      if (subscription !== undefined)
        assertTextOption('subscription', subscription, { max: limits.subscriptionNameLength })
      const { rows } = await database.query<DeadLetterRow>(
        `(select (r.job->>'id')::uuid as id, r.job->>'subscription' as subscription, r.job->'data' as data,
           (r.job->>'source_retry_count')::int as source_retry_count, nullif(r.job->'source_output', 'null') as source_output,
           (r.job->>'created_on')::timestamptz as created_on, r.job->>'tenant_id' as tenant_id,
           r.job->>'ordering_key' as ordering_key, r.job->>'key_state' as key_state, 0 as seq
         from bus.read_each(array(
           select format($job$
             select s.name as subscription, j.*, k.tenant_id, k.ordering_key, k.state as key_state
             from bus.subscriptions s
             cross join lateral (
               select id, data, source_retry_count, source_output, created_on from ${database.bossSchema}.%I
               where name = 'bus.' || s.name || '.dead' and state < 'active'
               order by created_on, id limit %s) j
             left join bus.ordered_keys k on k.id = (j.data->>'keyId')::bigint
               and k.failed_event_id = (j.data->'eventIds'->>0)::uuid and k.state in ('blocked', 'parked')
             where %3$L is null or s.name = %3$L
             order by j.created_on, j.id limit %2$s
           $job$, t.table_name, $2::int, $1::text)
           -- Dead letters stand in one table, as a rule.
           from (
             select distinct q.table_name from ${database.bossSchema}.queue q
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
        [subscription ?? null, count],
      )
      return rows.map(toDeadLetter)
    },
  }
}

export function toDeadLetter({
  id: jobId,
  subscription,
  data,
  source_retry_count,
  source_output,
  created_on,
  tenant_id: tenantId,
  ordering_key: orderingKey,
  key_state: state,
}: DeadLetterRow): DeadLetter {
  const blockedKey =
    tenantId === null || orderingKey === null || state === null ? undefined : { tenantId, orderingKey, state }
  const id = data.eventIds[0] ?? ''
  // Parked behind a failed event.
  if (blockedKey !== undefined && source_retry_count === null)
    return { id, subscription, jobId, attempts: 0, failures: [], deadAt: created_on, blockedKey }
  const before = data.attempts ?? 0
  const known = source_output?.failures ?? data.failures ?? []
  const attempts = source_output?.attempts ?? before + (source_retry_count ?? 0) + 1
  // pg-boss ended the last attempt because its worker was lost: its only trace is a message.
  const lost = source_output?.value?.message
  const failures =
    lost === undefined
      ? known
      : [...known, { attempt: attempts, at: created_on.toISOString(), name: 'WorkerLost', message: lost }]
  return { id, subscription, jobId, attempts, failures, deadAt: created_on, blockedKey }
}
