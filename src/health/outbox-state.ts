import type { Database } from '../database/database.ts'
import { readLimited } from './limited-read.ts'

/** What waits for the relay, but for what an ordered subscription gets after it has caught up with the log: that may wait. */
export interface OutboxState {
  /** For how long the first event that may be dispatched has waited; 0 if there is none. */
  readonly lagSeconds: number
  /** Events that may be dispatched, counted up to the given number. */
  readonly depth: number
}

/** The positions of events without a key and of those with one: see `bus.outbox`. */
const positions = [
  [0n, 2305843009213693952n],
  [2305843009213693952n, 4611686018427387904n],
] as const

/** Of the events that are held for one subscription, so many are compared. */
const maxHeld = 100

/** @param maxDepth - events are counted up to here. Scheduled events count when they are due */
export async function readOutbox(database: Pick<Database, 'query'>, maxDepth: number): Promise<OutboxState> {
  const ready = positions.map(([from, to]) => `position >= ${from} and position < ${to}`)
  const due = (key: string): string =>
    `available_at is not null and ordering_key is ${key} and available_at <= now()`
  const firstOf = (condition: string): string =>
    `(select to_timestamp(bus.uuid_ms(event_id) / 1000.0) from bus.outbox where ${condition} order by position limit 1)`
  const firstDue = (key: string): string =>
    `(select available_at from bus.outbox where ${due(key)} order by available_at limit 1)`
  const held = (maxCount: number): string =>
    `bus.read_held_events(${maxCount}, true) h where not h.of_catch_up`
  const firsts = [
    ...ready.map(firstOf),
    firstDue('null'),
    firstDue('not null'),
    `(select min(h.due_at) from ${held(maxHeld)})`,
  ]
  const counted = [
    ...[...ready, due('null'), due('not null')].map((condition) => `bus.outbox where ${condition}`),
    held(maxDepth),
  ].map((source) => `(select 1 from ${source} limit ${maxDepth})`)
  const [row] = await readLimited<{ lag: number | null; depth: number }>(
    database,
    `select extract(epoch from clock_timestamp() - least(${firsts.join(', ')}))::float8 as lag,
       ${maxDepth === 0 ? '0' : `(select count(*) from (select 1 from (${counted.join(' union all ')}) c limit ${maxDepth}) c)::int`} as depth`,
  )
  return { lagSeconds: Math.max(0, row?.lag ?? 0), depth: row?.depth ?? 0 }
}
