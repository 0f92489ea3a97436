import type { Database } from '../database/database.ts'
import { createFinding, maxItems, namesOf, type Finding } from './finding.ts'
import { readLimited } from './limited-read.ts'

/** Keys, and events behind them, are counted up to here. */
const maxKeys = 1000
const maxEvents = 1000

interface BlockedKeysOf extends Record<string, unknown> {
  readonly name: string
  readonly count: number
  readonly since: string
  /** Events behind all keys: the same in each row. */
  readonly waiting: number
  /** Whether there may be more keys: the same in each row. */
  readonly isPartial: boolean
}

/**
 * The keys of ordered subscriptions that wait for a person, longest first, by subscription. They are read by the index of `bus.ordered_keys` on
 * the times of failures, and the events behind them by the primary key of `bus.ordered_events`.
 */
export async function findBlockedKeys(database: Pick<Database, 'query'>): Promise<readonly Finding[]> {
  const rows = await readLimited<BlockedKeysOf>(
    database,
    `with first as materialized (
       select k.id, k.subscription_id, k.state, k.failed_at, k.failed_event_id, k.done_seq from bus.ordered_keys k
       where k.failed_at is not null order by k.failed_at limit ${maxKeys}
     ), failed as (
       select * from first where state in ('blocked', 'parked')
     ), behind as (
       select count(*)::int as waiting from (
         select from failed k cross join lateral (
           select o.event_id from bus.ordered_events o where o.key_id = k.id and o.seq > k.done_seq order by o.seq limit ${maxEvents}
         ) o where o.event_id is distinct from k.failed_event_id limit ${maxEvents}
       ) e
     )
     select coalesce(s.name, f.subscription_id::text) as name, count(*)::int as count, to_json(min(f.failed_at)) #>> '{}' as since,
       (select b.waiting from behind b) as waiting, (select count(*) from first) >= ${maxKeys} as "isPartial"
     from failed f left join bus.subscriptions s on s.id = f.subscription_id
     group by 1 order by 2 desc, 1`,
  )
  const [first] = rows
  if (first === undefined) return []
  const count = rows.reduce((sum, row) => sum + row.count, 0)
  const subscriptions = rows
    .slice(0, maxItems)
    .map(({ name, since, ...row }) => ({ name, count: row.count, since }))
  const [keys, failed, them] = count === 1 ? ['key waits', 'an event', 'it'] : ['keys wait', 'events', 'them']
  const { waiting, isPartial } = first
  const events = `${waiting}${waiting >= maxEvents ? ' or more' : ''} ${waiting === 1 ? 'event waits' : 'events wait'}`
  return [
    createFinding(
      'keys-blocked',
      `${count}${isPartial ? ' or more' : ''} ${keys} for a person after ${failed} that failed, and ${events} behind ${them}: ${namesOf(rows.map(({ name }) => name))}`,
      { subscriptions, count, waitingCount: waiting },
    ),
  ]
}
