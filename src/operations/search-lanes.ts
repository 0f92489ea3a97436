import { createValues, type StatementValues } from '../database/statement-values.ts'
import type { Executor } from '../database/database.ts'
import {
  allOf,
  conditionsOf,
  historyColumns,
  typeConditions,
  windowCondition,
  type Answered,
  type HistoryRow,
  type Window,
} from './event-statements.ts'
import type { CheckedFilter } from './history-filter.ts'

/**
 * The order in which a search reads a part of the log: by id; or the events of a tenant, or of some types, each by an index that has them in
 * the order of their ids.
 */
export interface Lanes {
  readonly column: 'tenant_id' | 'type' | undefined
  readonly keys: readonly string[]
  readonly answered: readonly Answered[]
}

/** Events of one tenant or type are far apart in the log: reading one costs about as much as eight that are next to each other. */
const scatteredWeight = 8

/** What a statement found in its window, and how far it has read. */
export interface Slice {
  readonly rows: readonly HistoryRow[]
  readonly readCount: number
  /** What it has used up of the limit. */
  readonly cost: number
  /** The last event that was read, in the order of the search; undefined if the window was read to its end. */
  readonly last: string | undefined
}

export interface SliceRequest {
  readonly filter: CheckedFilter
  readonly comparedTypes: readonly string[] | undefined
  /** The name of the function that finds events by state, and the ids of the subscriptions. */
  readonly state: { readonly source: string; readonly subscriptionIds: readonly number[] } | undefined
  readonly window: Window
  /** Rows to find at most. */
  readonly wanted: number
  /** What it may use up: see {@link Slice}. */
  readonly readLimit: number
}

/**
 * Reads up to `readLimit` events of a window, in lanes, and returns those that fulfil the filter. One statement, so that what was read and
 * what was found are of one snapshot: no event is missed or found twice when a search goes on.
 */
export async function readSlice(executor: Executor, request: SliceRequest, lanes: Lanes): Promise<Slice> {
  const { filter, comparedTypes, state, window, wanted, readLimit } = request
  const values = createValues()
  const direction = filter.order === 'newest' ? 'desc' : 'asc'
  const inWindow = windowCondition(window, filter, values)
  const fromLanes = lanesSql(lanes, inWindow, direction, values)
  // The index of tenants has the types too, so events of other types are not read.
  const ofTypes = lanes.column === 'tenant_id' ? typeConditions('s.type', filter, values) : []
  const answered = ofTypes.length === 0 ? lanes.answered : ([...lanes.answered, 'types', 'patterns'] as const)
  const residual = conditionsOf(filter, comparedTypes, values, answered)
  if (residual.length === 0 && ofTypes.length === 0 && state === undefined) {
    const { rows } = await executor.query<HistoryRow>(
      `select ${historyColumns} from ${fromLanes('e.*', wanted)} order by e.id ${direction} limit ${wanted}`,
      [...values.values],
    )
    return { rows, readCount: 0, cost: 0, last: undefined }
  }
  const isScattered = lanes.column !== undefined && state === undefined && residual.length > 0
  const weight = isScattered ? scatteredWeight : 1
  const laneCount = lanes.column === undefined ? 1 : Math.max(1, lanes.keys.length)
  const perLane = Math.max(1, Math.floor(readLimit / laneCount / weight))
  const ofSlice = `select s.id from slice s where ${allOf(ofTypes)}`
  const parts = [
    `slice as materialized (select l.key, e.* from ${fromLanes(ofTypes.length === 0 ? 'e.id' : 'e.id, e.type', perLane)})`,
    reachedSql(direction, perLane),
  ]
  if (state !== undefined) {
    parts.push(matchingSql(state, filter, ofSlice, values))
    residual.push('e.id in (select m.id from matching m)')
  }
  const found =
    ofTypes.length === 0
      ? fromLanes('e.*', perLane)
      : `(select e.* from bus.events e where e.id = any (array(
           ${ofSlice} order by s.id ${direction}${residual.length > 0 ? '' : ` limit ${wanted}`})) and ${inWindow}) e`
  const { rows } = await executor.query<
    HistoryRow & { readonly read_count: string; readonly last: string | null }
  >(
    `with ${parts.join(', ')}
     select r.read_count, r.last, f.* from reached r
     left join lateral (
       select ${historyColumns} from ${found}
       where ${allOf(residual)} and (r.last is null or e.id ${direction === 'desc' ? '>=' : '<='} r.last)
       order by e.id ${direction} limit ${wanted}
     ) f on true`,
    [...values.values],
  )
  const [first] = rows
  const readCount = Number(first?.read_count ?? 0)
  return {
    rows: rows.filter(({ id }) => (id as string | null) !== null),
    readCount,
    cost: readCount * weight,
    last: first?.last ?? undefined,
  }
}

type Direction = 'asc' | 'desc'

/** SQL for the first events `e` of each lane `l`, in the order of the search. */
function lanesSql(
  { column, keys }: Lanes,
  inWindow: string,
  direction: Direction,
  { value }: StatementValues,
): (select: string, limit: number) => string {
  const source = column === undefined ? 'unnest(array[1])' : `unnest(${value(keys)}::text[])`
  const condition = column === undefined ? inWindow : `e.${column} = l.key and ${inWindow}`
  // By the column too, so that no other index is chosen: the one of ids would read the events of all others.
  const order = column === undefined ? `e.id ${direction}` : `e.${column} ${direction}, e.id ${direction}`
  return (select, limit) => `${source} as l (key) cross join lateral (
    select ${select} from bus.events e where ${condition} order by ${order} limit ${limit}) e`
}

/** How many events were read, and which was the last one in all lanes: the lane that was cut off first says how far all have been read. */
function reachedSql(direction: Direction, perLane: number): string {
  const opposite = direction === 'desc' ? 'asc' : 'desc'
  return `reached as materialized (
    select (select count(*) from slice) as read_count, (
      select r.last from (
        select (array_agg(s.id order by s.id ${opposite}))[1] as last from slice s group by s.key having count(*) >= ${perLane}
      ) r order by r.last ${direction} limit 1) as last)`
}

/** Those of some events that are in a state. */
function matchingSql(
  { source, subscriptionIds }: NonNullable<SliceRequest['state']>,
  { status }: CheckedFilter,
  ids: string,
  { value }: StatementValues,
): string {
  return `matching as materialized (
    select f.id from ${source}(array(${ids}), ${value(subscriptionIds)}::int[], ${value(status?.state)}) as f (id))`
}
