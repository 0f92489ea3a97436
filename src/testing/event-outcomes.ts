import { defaultBossSchema } from '../database/boss-schema.ts'
import { wakePayload, wakeSql } from '../outbox/relay/notifier.ts'
import { makeJobsDueSql, unfinishedJobsSql } from '../delivery/jobs/test-jobs.ts'
import { describeState, type EventState } from './event-state.ts'
import type { TestDatabase } from './test-database.ts'

export function hasCome(
  states: readonly EventState[],
  outcome: EventOutcome,
  subscription: string | undefined,
): boolean {
  if (subscription !== undefined || outcome !== 'delivered')
    return states.some(
      (each) => each.state === outcome && (subscription ?? each.subscription) === each.subscription,
    )
  return states.length > 0 && states.every(({ state }) => state === 'delivered')
}

/** Whether an event has reached another outcome that it does not leave by itself. */
export function isUnreachable(
  states: readonly EventState[],
  outcome: EventOutcome,
  subscription: string | undefined,
): boolean {
  const final: readonly EventState['state'][] = ['delivered', 'expired', 'dead', 'cancelled']
  const own = states.filter(
    (each) => each.subscription === undefined || (subscription ?? each.subscription) === each.subscription,
  )
  if (own.some(({ state }) => state === 'cancelled')) return outcome !== 'cancelled'
  if (outcome === 'delivered') return own.some(({ state }) => state === 'dead' || state === 'expired')
  return own.length > 0 && own.every(({ state }) => final.includes(state))
}

export async function tell(
  { query }: TestDatabase,
  condition: string,
  values: readonly unknown[],
  states: readonly EventState[],
): Promise<string[]> {
  const matching = await query(
    `select id, type from bus.events where ${condition} order by id limit 5`,
    values,
  )
  if (matching.length === 0) {
    const types = await query(
      'select type, count(*)::int as count from bus.events group by type order by type',
    )
    const all = types.map(({ type, count }) => `${String(count)} ${String(type)}`)
    return [`No such event was published. Published were: ${all.length === 0 ? 'none' : all.join(', ')}.`]
  }
  return matching.flatMap(({ id, type }) => {
    const own = states.filter(({ eventId }) => eventId === id)
    const lines = own.length === 0 ? ['no subscription matches it'] : own.map(describeState)
    return lines.map((line) => `${String(type)} ${String(id)}: ${line}`)
  })
}

/** In one snapshot, so that an event that moves from one place to the next is seen. */
export async function isDrained({ query }: TestDatabase): Promise<boolean> {
  const [row] = await query(`select
    not exists (select from bus.outbox where available_at is null or available_at <= clock_timestamp())
    and not exists (select from bus.ordered_events w join bus.ordered_keys k on k.id = w.key_id and k.state in ('active', 'overrunning') and w.seq > k.done_seq)
    and not exists (select from ${unfinishedJobsSql(defaultBossSchema)} j) as drained`)
  return row?.['drained'] === true
}

/** Makes all later attempts due now, and notifies the workers. */
export async function skipDelays({ query }: TestDatabase): Promise<void> {
  const rows = await query(makeJobsDueSql(defaultBossSchema))
  if (rows.length > 0) await query(wakeSql, [wakePayload('', [...new Set(rows.map(({ id }) => Number(id)))])])
}

/** The outcomes that {@link TestBus.waitFor} can wait for. */
export type EventOutcome = 'delivered' | 'dead' | 'expired' | 'retrying' | 'blocked' | 'cancelled'

export const outcomes: readonly EventOutcome[] = [
  'delivered',
  'dead',
  'expired',
  'retrying',
  'blocked',
  'cancelled',
]
