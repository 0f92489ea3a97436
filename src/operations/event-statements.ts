import type { StatementValues } from '../database/statement-values.ts'
import { eventColumns, milliseconds, type EventRow } from '../outbox/schema/event-row.ts'
import type { CheckedFilter } from './history-filter.ts'

/** A row of the log as {@link historyColumns} selects it. */
export interface HistoryRow extends EventRow {
  readonly available_ms: string | null
  readonly cancelled_ms: string | null
  readonly erased_ms: string | null
}

/** The columns of an event of the history, of `bus.events` as `e`. */
export const historyColumns = `${eventColumns('e')}, ${milliseconds('e.available_at')} as available_ms, ${milliseconds('e.erased_at')} as erased_ms,
  case when e.available_at is not null then
    (select ${milliseconds('c.cancelled_at')} from bus.cancellations c where c.event_id = e.id) end as cancelled_ms`

/** A part of the log: ids from `low` up to, and not including, `high`. */
export interface Window {
  readonly low: string
  readonly high: string
}

/** Parts of a filter that an index, or a lane of the search, has answered already. */
export type Answered = keyof Pick<
  CheckedFilter,
  | 'tenantId'
  | 'types'
  | 'patterns'
  | 'subject'
  | 'correlationId'
  | 'causationId'
  | 'eventId'
  | 'idempotencyKey'
  | 'orderingKey'
>

/**
 * The conditions of a filter on an event `e`, without its time and its state. With a payload, events of other types than those that may be
 * compared are left out first.
 */
export function conditionsOf(
  filter: CheckedFilter,
  comparedTypes: readonly string[] | undefined,
  { value }: Pick<StatementValues, 'value'>,
  answered: readonly Answered[] = [],
): string[] {
  const columns = [
    ['tenantId', 'tenant_id', 'text'],
    ['subject', 'subject', 'text'],
    ['correlationId', 'correlation_id', 'text'],
    ['causationId', 'causation_id', 'uuid'],
    ['eventId', 'event_id', 'text'],
    ['idempotencyKey', 'idempotency_key', 'text'],
    ['orderingKey', 'ordering_key', 'text'],
  ] as const
  const conditions: string[] = columns
    .filter(([name]) => filter[name] !== undefined && !answered.includes(name))
    .map(([name, column, type]) => `e.${column} = ${value(filter[name])}::${type}`)
  if (filter.source !== undefined) conditions.push(`e.source = ${value(filter.source)}::text`)
  conditions.push(...typeConditions('e.type', filter, { value }, answered))
  if (filter.payload !== undefined) {
    // In this order: no payload is compared that may not be.
    conditions.push(
      `case when e.erased_at is null and e.type = any(${value(comparedTypes ?? [])}::text[]) then e.payload @> ${value(JSON.stringify(filter.payload))}::jsonb else false end`,
    )
  }
  return conditions
}

/** The conditions of a filter on a type. */
export function typeConditions(
  column: string,
  { types, patterns }: Pick<CheckedFilter, 'types' | 'patterns'>,
  { value }: Pick<StatementValues, 'value'>,
  answered: readonly Answered[] = [],
): string[] {
  const conditions: string[] = []
  if (types !== undefined && !answered.includes('types'))
    conditions.push(`${column} = any(${value(types)}::text[])`)
  if (patterns !== undefined && !answered.includes('patterns'))
    conditions.push(
      `exists (select from unnest(${value(patterns)}::text[]) as p (pattern) where bus.pattern_matches(p.pattern, ${column}))`,
    )
  return conditions
}

/** The condition that an event `e` is in a window, and after the last event of the page before. */
export function windowCondition(
  { low, high }: Window,
  filter: CheckedFilter,
  { value }: StatementValues,
): string {
  const inWindow = `e.id >= ${value(low)}::uuid and e.id < ${value(high)}::uuid`
  return filter.after === undefined || filter.order === 'newest'
    ? inWindow
    : `${inWindow} and e.id > ${value(filter.after)}::uuid`
}

export function allOf(conditions: readonly string[]): string {
  return conditions.length === 0 ? 'true' : conditions.join(' and ')
}
