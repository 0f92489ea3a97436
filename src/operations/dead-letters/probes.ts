import type pg from 'pg'

/** A dead letter that was redriven before the others, to see whether that helps. */
export interface Probe {
  readonly subscriptionId: number
  readonly eventId: string
  /** The attempts made before. 0 for one that waits as if it had not been tried. */
  readonly attempts: number
}

/**
 * What has become of probes, but for those whose subscription was removed: one of them is done; none of them has failed or is done for sure; all
 * have failed again, and why; or none is left.
 */
type Verdict = 'succeeded' | 'pending' | 'removed' | { readonly reason: string }

interface ProbeRow extends pg.QueryResultRow {
  readonly is_failing: boolean
  readonly has_failed: boolean
  readonly is_received: boolean
  readonly subscription: string | null
  readonly error_name: string | null
  readonly error_message: string | null
}

/** Only reads. */
export async function judgeProbes(client: pg.ClientBase, probes: readonly Probe[]): Promise<Verdict> {
  const failures: ProbeRow[] = []
  let removedCount = 0
  for (const { subscriptionId, eventId, attempts } of probes) {
    const { rows } = await client.query<ProbeRow>(
      `select f.event_id is not null as is_failing, coalesce(f.attempts > $3 or f.state <> 'retrying', false) as has_failed,
         exists (select from bus.received_events($1, array[$2::uuid])) as is_received, s.name as subscription, f.error_name,
         (select a.error_message from bus.attempts a where a.event_id = $2 and a.subscription_id = $1 and not a.succeeded
          order by a.ended_at desc limit 1) as error_message
       from (values (1)) v left join bus.failing f on f.subscription_id = $1 and f.event_id = $2
       left join bus.subscriptions s on s.id = $1`,
      [subscriptionId, eventId, attempts],
    )
    const [row] = rows
    if (row === undefined) continue
    if (row.is_received) return 'succeeded'
    if (row.subscription === null) {
      removedCount += 1
      continue
    }
    // One that was tried before and is failing no more is done, even if its receipt is gone.
    if (!row.is_failing && attempts > 0) return 'succeeded'
    if (row.has_failed) failures.push(row)
  }
  if (failures.length + removedCount < probes.length) return 'pending'
  if (failures.length === 0) return 'removed'
  const last = failures.at(-1)
  const message = (last?.error_message ?? '').slice(0, 1500)
  return {
    reason: `The first ${failures.length} of them failed again, in \`${last?.subscription ?? ''}\` with ${last?.error_name ?? 'an error'}: ${message}`,
  }
}
