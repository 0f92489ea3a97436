import type { EventCatalogue, EventType } from '../events/catalogue.ts'
import type { StoredEvent } from '../events/envelope.ts'
import { limits } from '../foundation/limits.ts'
import { idOption, integerOption, refuseUnknownKeys, textOption } from '../foundation/options.ts'
import {
  eventColumns,
  milliseconds,
  toDate,
  toStoredEvent,
  type EventRow,
} from '../outbox/schema/event-row.ts'
import type { Executor } from '../database/database.ts'
import { assertOptions, checkFilter, type EventFilter, type OperatorFilter } from './history-filter.ts'
import { uuidShape } from '../foundation/text.ts'

/**
 * An event of the log. The payload has the shape in which it was stored, which `schemaVersion` names, and is redacted
 * as the catalogue requires.
 */
export interface HistoryEvent<T extends string = string> extends StoredEvent<T> {
  /** The event is, or was, scheduled: it is not delivered before this time. */
  readonly availableAt: Date | undefined
  /** When it was cancelled before it was due. */
  readonly cancelledAt: Date | undefined
  /** When `bus.erase` replaced its payload by null and emptied its metadata. */
  readonly erasedAt: Date | undefined
}

/** A type of the catalogue, or any other: the log may contain types that this catalogue does not know. */
export type HistoryType<C extends EventCatalogue> = EventType<C> | (string & {})

/** Reads the log of one tenant. */
export interface EventHistory<C extends EventCatalogue> {
  /** A page of events, newest first unless `order` says otherwise. For the next page pass the id of the last event as `after`. */
  find: <const T extends HistoryType<C> = HistoryType<C>>(
    filter?: EventFilter<T>,
  ) => Promise<HistoryEvent<T>[]>
  /** One event, or undefined if no event has this id. */
  get: (id: string) => Promise<HistoryEvent | undefined>
  /**
   * The events of a correlation, including the event that started it. Each event follows its cause; otherwise they are
   * in publish order. `causationId` makes them a tree.
   */
  trace: (correlationId: string, options?: TraceOptions) => Promise<HistoryEvent[]>
}

export interface TraceOptions {
  /** Maximum number of events, 1 to 10,000; the first ones are returned. @defaultValue `1000` */
  readonly limit?: number | undefined
}

/** Reads the log of all tenants, or of one tenant. */
export interface OperatorHistory<C extends EventCatalogue> {
  find: <const T extends HistoryType<C> = HistoryType<C>>(
    filter?: OperatorFilter<T>,
  ) => Promise<HistoryEvent<T>[]>
  get: (id: string) => Promise<HistoryEvent | undefined>
  /** Like the trace of one tenant. Pass the tenant if you know it: otherwise the whole log is searched. */
  trace: (
    correlationId: string,
    options?: TraceOptions & { readonly tenantId?: string | undefined },
  ) => Promise<HistoryEvent[]>
}

/** Returns the visible part of a payload, depending on the type of its event. */
export type ShowPayload = (type: string, payload: unknown) => unknown

interface HistoryRow extends EventRow {
  readonly available_ms: string | null
  readonly cancelled_ms: string | null
  readonly erased_ms: string | null
}

const selectSql = `select ${eventColumns('e')}, ${milliseconds('e.available_at')} as available_ms, ${milliseconds('e.erased_at')} as erased_ms,
  case when e.available_at is not null then
    (select ${milliseconds('c.cancelled_at')} from bus.cancellations c where c.event_id = e.id) end as cancelled_ms
from bus.events e`

/**
 * The history as visible to the role that runs its statements: in a tenant's scope, row security restricts it to that
 * tenant's events.
 */
export function createHistory<C extends EventCatalogue>(
  executor: Executor,
  show: ShowPayload,
  scope: 'operator' | 'tenant',
): OperatorHistory<C> {
  const isOperator = scope === 'operator'
  return {
    async find<T extends HistoryType<C>>(filter: OperatorFilter<T> = {}) {
      const { where, limit, order } = checkFilter(filter, 'events.find', isOperator)
      const { rows } = await executor.query<HistoryRow>(
        `${selectSql} where ${where.text} order by e.id ${order === 'newest' ? 'desc' : 'asc'} limit ${limit}`,
        [...where.values],
      )
      return rows.map((row) => toHistoryEvent(row, show) as HistoryEvent<T>)
    },
    async get(id) {
      const { rows } = await executor.query<HistoryRow>(`${selectSql} where e.id = $1::uuid`, [
        idOption('id', id),
      ])
      return rows[0] === undefined ? undefined : toHistoryEvent(rows[0], show)
    },
    async trace(correlationId, options = {}) {
      assertOptions(options, 'events.trace')
      refuseUnknownKeys(options, isOperator ? ['limit', 'tenantId'] : ['limit'], 'events.trace')
      const limit = integerOption('limit', options.limit, limits.traceLimit)
      const values: unknown[] = [textOption('correlationId', correlationId, { max: limits.keyLength })]
      const { tenantId } = options
      if (tenantId !== undefined) values.push(textOption('tenantId', tenantId, { max: limits.keyLength }))
      const ofTenant = tenantId === undefined ? '' : ' and e.tenant_id = $2'
      const correlated = `${selectSql} where e.correlation_id = $1${ofTenant} order by e.id limit ${limit}`
      // A handler's events carry the id of the event that started everything, which has no correlation id itself.
      const { rows } = await executor.query<HistoryRow>(
        uuidShape.test(correlationId)
          ? `(${correlated}) union all
             (${selectSql} where e.id = $1::text::uuid and e.correlation_id is distinct from $1${ofTenant})
             order by id limit ${limit}`
          : correlated,
        values,
      )
      return inCausalOrder(rows.map((row) => toHistoryEvent(row, show)))
    },
  }
}

/** Maps a row of the log to the event that the APIs return. */
function toHistoryEvent(row: HistoryRow, show: ShowPayload): HistoryEvent {
  const event = toStoredEvent(row)
  return {
    ...event,
    payload: show(row.type, event.payload),
    availableAt: toDate(row.available_ms),
    cancelledAt: toDate(row.cancelled_ms),
    erasedAt: toDate(row.erased_ms),
  }
}

/** Ids are ordered by publish time, and a cause is published before its effect, unless a clock was set back in between. */
function inCausalOrder(events: readonly HistoryEvent[]): HistoryEvent[] {
  const left = new Map(events.map((event) => [event.id, event]))
  const ordered: HistoryEvent[] = []
  for (const event of events) {
    const chain: HistoryEvent[] = []
    for (
      let next: HistoryEvent | undefined = event;
      next !== undefined && left.delete(next.id);
      next = left.get(next.causationId ?? '')
    )
      chain.push(next)
    ordered.push(...chain.toReversed())
  }
  return ordered
}
