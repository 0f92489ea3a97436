import type { EventCatalogue, EventType } from '../events/catalogue.ts'
import { lowestId, timeInId } from '../events/event-id.ts'
import { limits } from '../foundation/limits.ts'
import {
  booleanOption,
  idOption,
  integerOption,
  refuseUnknownKeys,
  textOption,
} from '../foundation/options.ts'
import { parseJson, parseJsonExactly } from '../events/json/parse-json.ts'
import { toDate, toStoredEvent } from '../outbox/schema/event-row.ts'
import type { Executor } from '../database/database.ts'
import { refuseUnsearched } from './compared-types.ts'
import { searchEvents, timeReached, type FoundRows, type LogReader } from './event-search.ts'
import { historyColumns, type HistoryRow } from './event-statements.ts'
import { inCausalOrder, toTree, type TraceTree } from './event-trace.ts'
import { readEventStates, type EventState } from './event-states.ts'
import type { HistoryEvent } from './history-event.ts'
import {
  assertOptions,
  checkFilter,
  type CheckedFilter,
  type EventFilter,
  type OperatorFilter,
  type PayloadOptions,
  type SearchLimit,
} from './history-filter.ts'
import type { PayloadView } from './payload-view.ts'
import { uuidShape } from '../foundation/text.ts'

/** A type of the catalogue, or any other: the log may contain types that this catalogue does not know. */
export type HistoryType<C extends EventCatalogue> = EventType<C> | (string & {})

/** A page of a search, and how far it has searched. */
export interface EventSearch<T extends string = string> {
  readonly events: readonly HistoryEvent<T>[]
  /** Pass it as `after`, with the same filter, to search on. Undefined when all was searched. */
  readonly next: string | undefined
  readonly searched: {
    /** Events of the log that were read because no index answers this filter. 0 if an index does. */
    readonly readCount: number
    /** Everything published since this time (with `order: 'oldest'` until then) has been searched. Undefined when all was searched. */
    readonly through: Date | undefined
    /** Types of the catalogue whose events were left out, because their `redact` names something in `payload`. */
    readonly unsearchedTypes: readonly string[]
  }
}

/** Reads the log of one tenant. */
export interface EventHistory<C extends EventCatalogue> {
  /**
   * A page of events, newest first unless `order` says otherwise. For the next page pass the id of the last event as `after`. It is complete:
   * where no index answers the filter, it reads on until it has found `limit` events or has read the log, which takes seconds for millions of
   * events. {@link EventHistory.search} returns after a while and says how far it came. A `payload` that names something hidden of a type of
   * this search is refused: a search leaves such types out, and names them.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_SUBSCRIPTION_NOT_FOUND`
   */
  find: <const T extends HistoryType<C> = HistoryType<C>>(
    filter?: EventFilter<T>,
  ) => Promise<HistoryEvent<T>[]>
  /**
   * The same for a person who waits: it reads `readLimit` events at most, says how far it has searched, and goes on from there with
   * `after: next`. A page may have fewer events than `limit`, or none, and `next` nevertheless.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_SUBSCRIPTION_NOT_FOUND`
   */
  search: <const T extends HistoryType<C> = HistoryType<C>>(
    filter?: EventFilter<T> & SearchLimit,
  ) => Promise<EventSearch<T>>
  /** One event, or undefined if no event has this id. */
  get: (id: string, options?: PayloadOptions) => Promise<HistoryEvent | undefined>
  /**
   * Where some events are, 1 to 200 of them: one entry for each subscription that has or had one of them, and none for events that are
   * unknown. What replays did is not looked for. {@link Reads.deliveries} says more about one event.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
   */
  states: (ids: readonly string[]) => Promise<EventState[]>
  /**
   * The events of a correlation, including the event that started it. Each event follows its cause; otherwise they are
   * in publish order. `causationId` makes them a tree: see {@link EventHistory.traceTree}.
   */
  trace: (correlationId: string, options?: TraceOptions) => Promise<HistoryEvent[]>
  /** The events of a correlation, or of the correlation that an event belongs to, as a tree: each below its cause. */
  traceTree: (correlationOrEventId: string, options?: TraceOptions) => Promise<TraceTree>
}

export interface TraceOptions extends PayloadOptions {
  /** Maximum number of events, 1 to 10,000; the first ones are returned. @defaultValue `1000` */
  readonly limit?: number | undefined
}

/** The trace of an operator: pass the tenant if you know it, because otherwise all tenants are searched. */
type OperatorTraceOptions = TraceOptions & { readonly tenantId?: string | undefined }

/** Reads the log of all tenants, or of one tenant. */
export interface OperatorHistory<C extends EventCatalogue> {
  /** Like `find` of one tenant. */
  find: <const T extends HistoryType<C> = HistoryType<C>>(
    filter?: OperatorFilter<T>,
  ) => Promise<HistoryEvent<T>[]>
  /** Like `search` of one tenant. */
  search: <const T extends HistoryType<C> = HistoryType<C>>(
    filter?: OperatorFilter<T> & SearchLimit,
  ) => Promise<EventSearch<T>>
  get: (id: string, options?: PayloadOptions) => Promise<HistoryEvent | undefined>
  /** Like the states of one tenant's events. */
  states: (ids: readonly string[]) => Promise<EventState[]>
  /**
   * Like the trace of one tenant. Of a correlation that is the id of its first event, other tenants' events are found where one of these has
   * caused them. Pass the tenant if you know it: any other correlation is looked up for each tenant.
   */
  trace: (correlationId: string, options?: OperatorTraceOptions) => Promise<HistoryEvent[]>
  /** Like the tree of one tenant. */
  traceTree: (correlationOrEventId: string, options?: OperatorTraceOptions) => Promise<TraceTree>
}

/** By how much an effect may seem older than its cause, in ids: clocks are set back now and then. */
const clockMarginMs = 86_400_000

/**
 * The history as visible to the role that runs its statements: in a tenant's scope, row security restricts it to that
 * tenant's events.
 *
 * @param tenantId - the tenant whose scope it is; undefined for operators
 */
export function createHistory<C extends EventCatalogue>(
  executor: Executor,
  { show, comparable }: PayloadView,
  tenantId: string | undefined,
): OperatorHistory<C> {
  const isOperator = tenantId === undefined
  const reader: LogReader = { executor, tenantId, comparable }
  const toEvent = (row: HistoryRow, { exactNumbers }: PayloadOptions): HistoryEvent =>
    toHistoryEvent(row, show, exactNumbers === true ? parseJsonExactly : parseJson)

  async function get(id: string, options: PayloadOptions): Promise<HistoryEvent | undefined> {
    const { rows } = await executor.query<HistoryRow>(
      `select ${historyColumns} from bus.events e where e.id = $1::uuid`,
      [idOption('id', id)],
    )
    return rows[0] === undefined ? undefined : toEvent(rows[0], options)
  }

  /** The first events of a correlation, and one more than the limit if there are more. */
  async function correlated(
    correlationId: string,
    options: OperatorTraceOptions,
    call: string,
  ): Promise<{ readonly events: readonly HistoryEvent[]; readonly limit: number }> {
    assertOptions(options, call)
    refuseUnknownKeys(options, ['limit', 'exactNumbers', ...(isOperator ? ['tenantId'] : [])], call)
    booleanOption('exactNumbers', options.exactNumbers, false)
    const limit = integerOption('limit', options.limit, limits.traceLimit)
    textOption('correlationId', correlationId, { max: limits.keyLength })
    // A handler's events carry the id of the event that started everything, which has no correlation id itself.
    const started = uuidShape.test(correlationId) ? await get(correlationId, options) : undefined
    const root =
      started !== undefined && (options.tenantId ?? started.tenantId) === started.tenantId
        ? started
        : undefined
    // Where it is known, its tenant is searched by index, and other tenants by what these events have caused.
    const ofTenant = options.tenantId ?? root?.tenantId
    const filter = checkFilter(
      {
        correlationId,
        order: 'oldest',
        ...(isOperator && ofTenant !== undefined ? { tenantId: ofTenant } : {}),
      },
      'events.find',
      isOperator,
    )
    // What it has started is younger, but for clocks that were set back.
    const low = root === undefined ? filter.low : lowestId(Math.max(0, timeInId(root.id) - clockMarginMs))
    const rows = await findRows(reader, { ...filter, low, limit: limit + 1 })
    const found = new Map(
      [...(root === undefined ? [] : [root]), ...rows.map((row) => toEvent(row, options))].map((event) => [
        event.id,
        event,
      ]),
    )
    if (root !== undefined && isOperator && options.tenantId === undefined)
      await addEffects(found, limit, options, correlationId)
    return { events: [...found.values()].toSorted((a, b) => (a.id < b.id ? -1 : 1)), limit }
  }

  /** Adds what these events have caused, whatever its correlation: plain SQL may have published it. Until there are more than `limit`. */
  async function addEffects(
    found: Map<string, HistoryEvent>,
    limit: number,
    options: OperatorTraceOptions,
    correlationId?: string,
  ): Promise<void> {
    for (let causes = [...found.keys()]; causes.length > 0 && found.size <= limit;) {
      const { rows } = await executor.query<HistoryRow>(
        `select ${historyColumns} from bus.events e
         where e.causation_id = any ($1::uuid[]) and e.id >= $2::uuid and ($3::text is null or e.tenant_id = $3)
           and ($4::text is null or e.correlation_id = $4) limit ${limit + 1}`,
        // An effect is younger than its cause, but for clocks that were set back.
        [
          causes,
          lowestId(Math.max(0, timeInId(causes.toSorted()[0] ?? '') - 60_000)),
          options.tenantId ?? null,
          correlationId ?? null,
        ],
      )
      const effects = rows.filter(({ id }) => !found.has(id)).map((row) => toEvent(row, options))
      for (const effect of effects) found.set(effect.id, effect)
      causes = effects.map(({ id }) => id)
    }
  }

  return {
    async find<T extends HistoryType<C>>(filter: OperatorFilter<T> = {}) {
      const checked = checkFilter(filter, 'events.find', isOperator)
      refuseUnsearched(reader, checked)
      return (await findRows(reader, checked)).map((row) => toEvent(row, checked) as HistoryEvent<T>)
    },
    async search<T extends HistoryType<C>>(filter: OperatorFilter<T> & SearchLimit = {}) {
      const checked = checkFilter(filter, 'events.search', isOperator)
      const found = await searchEvents(reader, checked)
      return toSearch(found, (row) => toEvent(row, checked) as HistoryEvent<T>)
    },
    async get(id, options = {}) {
      assertOptions(options, 'events.get')
      refuseUnknownKeys(options, ['exactNumbers'], 'events.get')
      booleanOption('exactNumbers', options.exactNumbers, false)
      return get(id, options)
    },
    states: async (ids) => readEventStates(executor, isOperator ? 'event' : 'tenant', ids),
    async trace(correlationId, options = {}) {
      const { events, limit } = await correlated(correlationId, options, 'events.trace')
      return inCausalOrder(events.slice(0, limit))
    },
    async traceTree(id, options = {}) {
      assertOptions(options, 'events.traceTree')
      const event = typeof id === 'string' && uuidShape.test(id) ? await get(id, options) : undefined
      const { events, limit } = await correlated(event?.correlationId ?? id, options, 'events.traceTree')
      const found = new Map(events.map((each) => [each.id, each]))
      if (event !== undefined && (options.tenantId ?? event.tenantId) === event.tenantId)
        found.set(event.id, event)
      await addEffects(found, limit, options)
      const all = [...found.values()].toSorted((a, b) => (a.id < b.id ? -1 : 1))
      return toTree(all.slice(0, limit), all.length > limit)
    },
  }
}

/** Searches on until the page is full, or all was searched. */
async function findRows(reader: LogReader, filter: CheckedFilter): Promise<readonly HistoryRow[]> {
  const rows: HistoryRow[] = []
  let { after } = filter
  for (;;) {
    const page = await searchEvents(reader, { ...filter, after, limit: filter.limit - rows.length })
    rows.push(...page.rows)
    if (page.next === undefined || rows.length >= filter.limit) return rows
    after = page.next
  }
}

function toSearch<T extends string>(
  { rows, next, readCount, unsearchedTypes }: FoundRows,
  toEvent: (row: HistoryRow) => HistoryEvent<T>,
): EventSearch<T> {
  return {
    events: rows.map(toEvent),
    next,
    searched: { readCount, through: next === undefined ? undefined : timeReached(next), unsearchedTypes },
  }
}

/** Maps a row of the log to the event that the APIs return. */
function toHistoryEvent(
  row: HistoryRow,
  show: PayloadView['show'],
  parse: (text: string) => unknown,
): HistoryEvent {
  const event = toStoredEvent(row, parse)
  return {
    ...event,
    payload: show(row.type, event.payload),
    availableAt: toDate(row.available_ms),
    cancelledAt: toDate(row.cancelled_ms),
    erasedAt: toDate(row.erased_ms),
  }
}
