import type { Database } from '../database/database.ts'
import { readLimited } from './limited-read.ts'

/** What waits for the relay. */
export interface OutboxState {
  /** For how long the first event that may be dispatched has waited; 0 if there is none. */
  readonly lagSeconds: number
  /** Events that may be dispatched, counted up to the given number. */
  readonly depth: number
}

/** The positions of held events, of events without a key and of those with one: see `bus.outbox`. */
const positions = [
  [-9223372036854775808n, 0n],
  [0n, 2305843009213693952n],
  [2305843009213693952n, 4611686018427387904n],
] as const

/** @param maxDepth - events are counted up to here. Scheduled events count when they are due */
export async function readOutbox(database: Pick<Database, 'query'>, maxDepth: number): Promise<OutboxState> {
  const ready = positions.map(([from, to]) => `position >= ${from} and position < ${to}`)
  const due = (key: string): string =>
    `available_at is not null and ordering_key is ${key} and available_at <= now()`
  const firstOf = (condition: string): string =>
    `(select to_timestamp(bus.uuid_ms(event_id) / 1000.0) from bus.outbox where ${condition} order by position limit 1)`
  const firstDue = (key: string): string =>
    `(select available_at from bus.outbox where ${due(key)} order by available_at limit 1)`
  const counted = [...ready, due('null'), due('not null')].map(
    (condition) => `(select 1 from bus.outbox where ${condition} limit ${maxDepth})`,
  )
  const [row] = await readLimited<{ lag: number | null; depth: number }>(
    database,
    `select extract(epoch from clock_timestamp() - least(${[...ready.map(firstOf), firstDue('null'), firstDue('not null')].join(', ')}))::float8 as lag,
       ${maxDepth === 0 ? '0' : `(select count(*) from (select 1 from (${counted.join(' union all ')}) c limit ${maxDepth}) c)::int`} as depth`,
  )
  return { lagSeconds: Math.max(0, row?.lag ?? 0), depth: row?.depth ?? 0 }
}
