import { createValues } from '../database/statement-values.ts'
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
  const isNewest = filter.order === 'newest'
  const direction = isNewest ? 'desc' : 'asc'
  const inWindow = windowCondition(window, filter, values)
  const { column, keys } = lanes
  // The index of tenants has the types too, so events of other types are not read.
  const ofTypes = column === 'tenant_id' ? typeConditions('s.type', filter, values) : []
  const answered = ofTypes.length === 0 ? lanes.answered : ([...lanes.answered, 'types', 'patterns'] as const)
  const residual = conditionsOf(filter, comparedTypes, values, answered)
  const laneCount = column === undefined ? 1 : Math.max(1, keys.length)
  const source = column === undefined ? 'unnest(array[1])' : `unnest(${values.value(keys)}::text[])`
  // Ordered by its column too, so that no other index is chosen: the one of ids would read the events of all others.
  const inLane = (select: string, limit: number): string =>
    column === undefined
      ? `(select ${select} from bus.events e where ${inWindow} order by e.id ${direction} limit ${limit})`
      : `(select ${select} from bus.events e where e.${column} = l.key and ${inWindow} order by e.${column} ${direction}, e.id ${direction} limit ${limit})`
  const isRead = residual.length > 0 || ofTypes.length > 0 || state !== undefined
  if (!isRead) {
    const { rows } = await executor.query<HistoryRow>(
      `select ${historyColumns} from ${source} as l (key) cross join lateral ${inLane('e.*', wanted)} e order by e.id ${direction} limit ${wanted}`,
      [...values.values],
    )
    return { rows, readCount: 0, cost: 0, last: undefined }
  }
  const isScattered = column !== undefined && state === undefined && residual.length > 0
  const weight = isScattered ? scatteredWeight : 1
  const perLane = Math.max(1, Math.floor(readLimit / laneCount / weight))
  if (state !== undefined) residual.push(`e.id in (select m.id from matching m)`)
  const matching =
    state === undefined
      ? ''
      : `, matching as materialized (
           select f.id from ${state.source}(array(select s.id from slice s where ${allOf(ofTypes)}), ${values.value(state.subscriptionIds)}::int[], ${values.value(filter.status?.state)}) as f (id)
         )`
  const wantedIds = `select s.id from slice s where ${allOf(ofTypes)} order by s.id ${direction}${residual.length > 0 ? '' : ` limit ${wanted}`}`
  const candidates =
    ofTypes.length === 0
      ? `${source} as l (key) cross join lateral ${inLane('e.*', perLane)} e`
      : `(select e.* from bus.events e where e.id = any (array(${wantedIds})) and ${inWindow}) e`
  const { rows } = await executor.query<
    HistoryRow & { readonly read_count: string; readonly last: string | null }
  >(
    `with slice as materialized (
       select l.key, e.id${ofTypes.length === 0 ? '' : ', e.type'} from ${source} as l (key)
       cross join lateral ${inLane(ofTypes.length === 0 ? 'e.id' : 'e.id, e.type', perLane)} e
     ), reached as materialized (
       -- The lane that was cut off first says how far all have been read.
       select (select count(*) from slice) as read_count, (
         select r.last from (
           select (array_agg(s.id order by s.id ${isNewest ? 'asc' : 'desc'}))[1] as last from slice s group by s.key having count(*) >= ${perLane}
         ) r order by r.last ${direction} limit 1) as last
     )${matching}
     select r.read_count, r.last, f.* from reached r
     left join lateral (
       select ${historyColumns} from ${candidates}
       where ${allOf(residual)} and (r.last is null or e.id ${isNewest ? '>=' : '<='} r.last)
       order by e.id ${direction} limit ${wanted}
     ) f on true`,
    [...values.values],
  )
  const [first] = rows
  return {
    rows: rows.filter(({ id }) => (id as string | null) !== null),
    readCount: Number(first?.read_count ?? 0),
    cost: Number(first?.read_count ?? 0) * weight,
    last: first?.last ?? undefined,
  }
}
