import { timeInId } from '../events/event-id.ts'
import { compilePatterns } from '../events/pattern.ts'
import type { Executor } from '../database/database.ts'
import { refuseUnknownSubscription, subscriptionNotFound } from '../delivery/registry/find-subscription.ts'
import { comparedTypes } from './compared-types.ts'
import type { DeliveryState } from './delivery-status.ts'
import type { HistoryRow, Window } from './event-statements.ts'
import { highestEventId, lowestEventId, type CheckedFilter } from './history-filter.ts'
import { partitionsIn } from './log-partitions.ts'
import type { PayloadView } from './payload-view.ts'
import { readSlice, type Lanes, type Slice, type SliceRequest } from './search-lanes.ts'
import { keysIn, readIndexed, readKeys, readListed } from './search-sets.ts'

/** Whose log is read, and what of payloads may be compared. */
export interface LogReader {
  readonly executor: Executor
  /** Undefined for operators. */
  readonly tenantId: string | undefined
  readonly comparable: PayloadView['comparable']
}

/** A page of a search. */
export interface FoundRows {
  readonly rows: readonly HistoryRow[]
  readonly readCount: number
  readonly unsearchedTypes: readonly string[]
  /** Where to go on: `after` of the next page. Undefined if all was searched. */
  readonly next: string | undefined
}

/** So many events in a state are listed by index; with more, the newest ones. */
const maxStateCount = 5000

/** So many events are read at most where the state of each has to be looked up. Each takes about 50 µs for each subscription. */
const stateReadLimits: Readonly<Record<DeliveryState, number>> = {
  waiting: 200,
  delivering: 200,
  delivered: 1000,
  expired: 1000,
  erased: 1000,
  discarded: 1000,
  retrying: 1000,
  dead: 1000,
}

interface State {
  readonly ids: readonly number[]
  readonly state: DeliveryState
}

/** Functions of the same name are the tenants' own: drizzle/0007_find_and_explain.sql. */
const functionOf = ({ tenantId }: LogReader, name: string): string =>
  tenantId === undefined ? `bus.${name}` : `bus.tenant_${name}`

/**
 * Finds a page of events. What an index answers is looked up: keys, correlation, cause, subject, failing and waiting events. Everything else
 * reads the log in the order of its ids, partition by partition, and stops after a number of events; `next` says where to go on.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_SUBSCRIPTION_NOT_FOUND`
 */
export async function searchEvents(reader: LogReader, given: CheckedFilter): Promise<FoundRows> {
  const filter = reader.tenantId === undefined ? given : { ...given, tenantId: reader.tenantId }
  const { compared, unsearchedTypes } = comparedTypes(reader, filter)
  const window = windowOf(filter)
  const page = (rows: readonly HistoryRow[], next?: string, readCount = 0): FoundRows => ({
    rows,
    readCount,
    unsearchedTypes,
    next: rows.length >= filter.limit ? rows.at(-1)?.id : next,
  })
  const state = filter.status === undefined ? undefined : await readState(reader, filter.status)
  if (window.low >= window.high || state?.ids.length === 0) return page([])
  const listed = await listEvents(reader, filter, state, window)
  if (listed !== undefined) {
    const parts = { ids: listed.ids, window, wanted: filter.limit }
    const rows = await readListed(reader.executor, filter, compared, parts)
    return page(
      state === undefined || listed.areInState ? rows : await keepInState(reader, rows, state),
      listed.next,
    )
  }
  return searchPartitions(reader, filter, { compared, state, window, page })
}

interface Search {
  readonly compared: readonly string[] | undefined
  readonly state: State | undefined
  readonly window: Window
  readonly page: (rows: readonly HistoryRow[], next?: string, readCount?: number) => FoundRows
}

async function searchPartitions(
  reader: LogReader,
  filter: CheckedFilter,
  search: Search,
): Promise<FoundRows> {
  const { state, page } = search
  const isNewest = filter.order === 'newest'
  const readLimit = Math.min(
    filter.readLimit,
    state === undefined ? filter.readLimit : stateReadLimits[state.state],
  )
  const partitions = await partsOf(reader.executor, search.window)
  if (isNewest) partitions.reverse()
  const rows: HistoryRow[] = []
  let readCount = 0
  let cost = 0
  for (const [index, { partition, window }] of partitions.entries()) {
    const request = {
      filter,
      comparedTypes: search.compared,
      state:
        state === undefined
          ? undefined
          : { source: functionOf(reader, 'events_with_state'), subscriptionIds: state.ids },
      window,
      wanted: filter.limit - rows.length,
      readLimit: readLimit - cost,
    }
    const slice = await readPartition(reader, request, partition, state)
    rows.push(...slice.rows)
    readCount += slice.readCount
    cost += slice.cost
    if (rows.length >= filter.limit || slice.last !== undefined) return page(rows, slice.last, readCount)
    if (cost >= readLimit && index < partitions.length - 1)
      return page(rows, isNewest ? window.low : window.high, readCount)
  }
  return page(rows, undefined, readCount)
}

/** Reads a part of the log that lies in one partition. */
async function readPartition(
  reader: LogReader,
  request: SliceRequest,
  partition: Window,
  state: State | undefined,
): Promise<Slice> {
  const { executor } = reader
  const { filter, comparedTypes: compared, window, wanted } = request
  const indexed = await readIndexed(executor, filter, compared, {
    window,
    partition,
    wanted: state === undefined ? wanted : request.readLimit,
  })
  if (indexed !== undefined) {
    const { cost } = indexed
    if (state === undefined) return { rows: indexed.rows, readCount: 0, cost, last: undefined }
    const rows = (await keepInState(reader, indexed.rows, state)).slice(0, wanted)
    const isCut = indexed.rows.length >= request.readLimit
    return {
      rows,
      readCount: indexed.rows.length,
      cost: cost + indexed.rows.length,
      last: isCut ? indexed.rows.at(-1)?.id : undefined,
    }
  }
  if (filter.tenantId === undefined)
    return readSlice(executor, request, await lanesOf(executor, filter, partition))
  const lanes: Lanes = { column: 'tenant_id', keys: [filter.tenantId], answered: ['tenantId'] }
  const slice = await readSlice(executor, request, lanes)
  if (slice.last === undefined || slice.rows.length >= wanted || filter.types === undefined) return slice
  // A tenant with many events, and types that may be rare.
  const byType = await readSlice(executor, request, await lanesOf(executor, filter, partition))
  return byType.last === undefined ? byType : slice
}

async function lanesOf(executor: Executor, filter: CheckedFilter, partition: Window): Promise<Lanes> {
  const { types, patterns } = filter
  if (patterns === undefined)
    return types === undefined
      ? { column: undefined, keys: [], answered: [] }
      : { column: 'type', keys: types, answered: ['types'] }
  const known = types ?? (await keysIn(executor, 'type', partition))
  if (known === undefined) return { column: undefined, keys: [], answered: [] }
  return { column: 'type', keys: known.filter(compilePatterns(patterns)), answered: ['types', 'patterns'] }
}

/** The events that keys, or a state, name. */
async function listEvents(
  reader: LogReader,
  filter: CheckedFilter,
  state: State | undefined,
  { low, high }: Window,
): Promise<
  | { readonly ids: readonly string[]; readonly next?: string | undefined; readonly areInState: boolean }
  | undefined
> {
  const { executor } = reader
  for (const [kind, key] of [
    ['event_id', filter.eventId],
    ['idempotency_key', filter.idempotencyKey],
  ] as const) {
    const ids = key === undefined ? undefined : await readKeys(executor, [kind], key, filter.tenantId)
    if (ids !== undefined) return { ids: ids.map(({ id }) => id), areInState: false }
  }
  const { correlationId, causationId, subject } = filter
  // These name fewer events than a state does.
  if (
    state === undefined ||
    causationId !== undefined ||
    correlationId !== undefined ||
    subject !== undefined
  )
    return undefined
  const { rows } = await executor.query<{ ids: string[] | null }>(
    `select ${functionOf(reader, 'events_in_state')}($1::int[], $2, $3, $4::uuid, $5::uuid, ${maxStateCount})::text[] as ids`,
    [state.ids, state.state, filter.tenantId ?? null, low, high],
  )
  const ids = rows[0]?.ids ?? undefined
  if (ids === undefined || ids.length < maxStateCount)
    return ids === undefined ? undefined : { ids, areInState: true }
  // The newest ones of more.
  return filter.order === 'newest' ? { ids, next: ids.at(-1), areInState: true } : undefined
}

async function keepInState(
  reader: LogReader,
  rows: readonly HistoryRow[],
  { ids, state }: State,
): Promise<readonly HistoryRow[]> {
  if (rows.length === 0) return rows
  const { rows: kept } = await reader.executor.query<{ id: string }>(
    `select f.id from ${functionOf(reader, 'events_with_state')}($1::uuid[], $2::int[], $3) as f (id)`,
    [rows.map(({ id }) => id), ids, state],
  )
  const found = new Set(kept.map(({ id }) => id))
  return rows.filter(({ id }) => found.has(id))
}

/** Without ids where the subscription was removed: then no event is in any state for it. */
async function readState(
  { executor, tenantId }: LogReader,
  { state, subscription }: NonNullable<CheckedFilter['status']>,
): Promise<State> {
  const { rows } = await executor.query<{ ids: number[] }>('select bus.subscription_ids($1) as ids', [
    subscription ?? null,
  ])
  const ids = rows[0]?.ids ?? []
  if (ids.length === 0 && subscription !== undefined) {
    if (tenantId !== undefined) throw subscriptionNotFound(subscription)
    await refuseUnknownSubscription(executor, subscription)
  }
  return { ids, state }
}

function windowOf({ low, high, after, order }: CheckedFilter): Window {
  if (after === undefined) return { low, high }
  if (order === 'newest') return { low, high: after < high ? after : high }
  return { low: after > low ? after : low, high }
}

/** A partition of the log, and what of it is searched. */
interface Part {
  readonly partition: Window
  readonly window: Window
}

/** The partitions that a window touches, oldest first. */
async function partsOf(executor: Executor, { low, high }: Window): Promise<Part[]> {
  return (await partitionsIn(executor))
    .filter((partition) => partition.low < high && partition.high > low)
    .map((partition) => ({
      partition,
      window: {
        low: partition.low > low ? partition.low : low,
        high: partition.high < high ? partition.high : high,
      },
    }))
}

/** The time of an id that a search has reached. */
export function timeReached(id: string): Date | undefined {
  return id === lowestEventId || id === highestEventId ? undefined : new Date(timeInId(id))
}
