import { limits } from '../../foundation/limits.ts'
import { describe, idOption, invalidOption, spanOption, textOption } from '../../foundation/options.ts'
import { checkPattern, isWildcard } from '../../events/pattern.ts'
import { lowestId, timeInId } from '../../events/event-id.ts'
import type { Executor } from '../../database/database.ts'
import { createValues } from '../../database/statement-values.ts'
import type { ClaimedEvent } from '../../outbox/relay/claim.ts'

/** Which events of the log to replay. All that is given must hold. */
export interface ReplaySelection {
  readonly tenantId?: string | undefined
  /** Names of types and patterns, as in a subscription: one of them must match. */
  readonly type?: string | readonly string[] | undefined
  /** Published at this time or later, judged by the id. */
  readonly from?: Date | undefined
  /** Published before this time. @defaultValue the time of the call */
  readonly to?: Date | undefined
  /** Together with `tenantId`. */
  readonly correlationId?: string | undefined
  /** Together with `tenantId`. */
  readonly subject?: string | undefined
  /** Up to 10,000 ids. */
  readonly ids?: readonly string[] | undefined
}

/** A selection as an operation stores it: ids in order, times as ids. */
export interface StoredSelection {
  readonly tenantId?: string
  readonly types?: readonly string[]
  readonly correlationId?: string
  readonly subject?: string
  readonly ids?: readonly string[]
  /** The first id that may be selected. */
  readonly fromId: string
  /** The last one. */
  readonly untilId: string
}

export const selectionKeys = ['tenantId', 'type', 'from', 'to', 'correlationId', 'subject', 'ids'] as const

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN` */
export function checkSelection(given: ReplaySelection): StoredSelection {
  if (selectionKeys.every((key) => given[key] === undefined))
    throw invalidOption(
      'Expected a selection: one of `tenantId`, `type`, `from`, `to`, `correlationId`, `subject` and `ids`. All events of the log are `from: new Date(0)`',
    )
  const { tenantId, type, correlationId, subject, ids } = given
  const { from, to } = spanOption(given)
  for (const [name, value] of Object.entries({ correlationId, subject }))
    if (value !== undefined && tenantId === undefined)
      throw invalidOption(`Expected \`${name}\` only together with \`tenantId\``, name)
  const fromMs = from?.getTime() ?? 0
  const untilMs = to?.getTime() ?? Date.now() + clockMarginMs
  return {
    ...(tenantId === undefined
      ? {}
      : { tenantId: textOption('tenantId', tenantId, { max: limits.keyLength }) }),
    ...(type === undefined ? {} : { types: checkTypes(type) }),
    ...(correlationId === undefined
      ? {}
      : { correlationId: textOption('correlationId', correlationId, { max: limits.keyLength }) }),
    ...(subject === undefined
      ? {}
      : { subject: textOption('subject', subject, { max: limits.subjectLength }) }),
    ...(ids === undefined ? {} : { ids: checkIds(ids) }),
    fromId: lowestId(fromMs),
    untilId: lowestId(untilMs),
  }
}

/** What the clocks of this process and of the database may differ by. */
const clockMarginMs = 1000

function checkTypes(given: unknown): readonly string[] {
  const types = (Array.isArray(given) ? given : [given]) as unknown[]
  if (types.length === 0 || types.length > limits.filterTypeCount)
    throw invalidOption(
      `Expected \`type\` to be 1 to ${limits.filterTypeCount} types or patterns, got ${types.length}`,
      'type',
    )
  for (const type of types) checkPattern(type)
  return types as string[]
}

function checkIds(given: unknown): readonly string[] {
  if (!Array.isArray(given) || given.length === 0 || given.length > limits.replayIdCount)
    throw invalidOption(
      `Expected \`ids\` to be a list of 1 to ${limits.replayIdCount} ids, got ${describe(given)}`,
      'ids',
    )
  return [...new Set((given as unknown[]).map((id) => idOption('ids', id).toLowerCase()))].toSorted()
}

/** An event of the log that may be delivered. */
export type LogEvent = ClaimedEvent

/** Some events of a selection, in the order of their ids. */
export interface Page {
  readonly events: readonly LogEvent[]
  /** The next page begins behind it. */
  readonly cursor: string
  /** Whether there is nothing behind it. */
  readonly isLast: boolean
}

/** At most so many entries of an index are read for a page, however few of them are selected. */
const windowSize = 20_000

/** Months without events that a page passes over. */
const maxEmptyMonths = 24

/** Where a selection begins: behind this id. Without a time, before the first event of the log. */
export async function firstCursor(executor: Executor, { fromId, ids }: StoredSelection): Promise<string> {
  if (ids !== undefined || timeInId(fromId) > 0) return fromId
  const { rows } = await executor.query<{ id: string }>('select id from bus.events order by id limit 1')
  const first = rows[0]?.id
  return first === undefined ? fromId : lowestId(timeInId(first))
}

/**
 * Reads the events of a selection behind a cursor, in the order of their ids: one month of the log at a time, so that a statement locks one
 * partition. Events that were cancelled or erased are left out.
 *
 * @param also - a further condition, in SQL
 */
export async function readPage(
  executor: Executor,
  selection: StoredSelection,
  after: string,
  maxCount: number,
  also = 'true',
): Promise<Page> {
  if (selection.ids !== undefined) return readIds(executor, selection, selection.ids, after, maxCount)
  let cursor = after
  for (let month = 0; month < maxEmptyMonths; month += 1) {
    const monthEnd = lowestId(nextMonth(timeInId(cursor)))
    const { conditions, conditionValues, filters, values } = toSql(selection, cursor, monthEnd)
    const window = `select * from bus.events e where ${conditions} order by e.id limit ${windowSize}`
    const { rows } = await executor.query<EventRow>(
      `${selectSql} from (${window}) e where ${filters} and ${also} order by e.id limit ${maxCount}`,
      values,
    )
    const last = rows.at(-1)
    if (last !== undefined && rows.length >= maxCount)
      return { events: rows.map(toEvent), cursor: last.id, isLast: false }
    const { rows: seen } = await executor.query<{ count: number; last: string | null }>(
      `select count(*)::int as count, max(w.id::text) as last
       from (select e.id from bus.events e where ${conditions} order by e.id limit ${windowSize}) w`,
      conditionValues,
    )
    const [read] = seen
    if (read !== undefined && read.count >= windowSize && read.last !== null)
      // What was committed in between may have moved the end of the window: what was read is not read again.
      return {
        events: rows.map(toEvent),
        cursor: last === undefined || last.id < read.last ? read.last : last.id,
        isLast: false,
      }
    cursor = monthEnd
    const isLast = monthEnd > selection.untilId
    if (rows.length > 0 || isLast) return { events: rows.map(toEvent), cursor, isLast }
  }
  return { events: [], cursor, isLast: false }
}

async function readIds(
  executor: Executor,
  selection: StoredSelection,
  ids: readonly string[],
  after: string,
  maxCount: number,
): Promise<Page> {
  const left = ids.filter((id) => id > after)
  const slice = left.slice(0, maxCount)
  const last = slice.at(-1)
  if (last === undefined) return { events: [], cursor: after, isLast: true }
  const { conditions, filters, values } = toSql(selection, after, undefined)
  const { rows } = await executor.query<EventRow>(
    `${selectSql} from bus.events e where ${conditions} and e.id = any ($${values.length + 1}::uuid[]) and ${filters} order by e.id`,
    [...values, slice],
  )
  return { events: rows.map(toEvent), cursor: last, isLast: slice.length === left.length }
}

const selectSql = `select e.id, e.tenant_id, e.type, e.ordering_key, octet_length(e.payload::text) as bytes,
  (extract(epoch from e.available_at) * 1000)::float8 as due_ms`

interface EventRow extends Record<string, unknown> {
  readonly id: string
  readonly tenant_id: string
  readonly type: string
  readonly ordering_key: string | null
  readonly bytes: number
  readonly due_ms: number | null
}

function toEvent(row: EventRow): LogEvent {
  return {
    id: row.id,
    tenantId: row.tenant_id,
    type: row.type,
    orderingKey: row.ordering_key ?? undefined,
    payloadBytes: row.bytes,
    wasScheduled: row.due_ms !== null,
    dueMs: row.due_ms === null || !Number.isFinite(row.due_ms) ? undefined : Math.floor(row.due_ms),
  }
}

interface SelectionSql {
  /** Those that an index answers, and their values. */
  readonly conditions: string
  readonly conditionValues: unknown[]
  /** For what these find. */
  readonly filters: string
  /** Of the conditions, then of the filters. */
  readonly values: unknown[]
}

function toSql(
  { tenantId, types, correlationId, subject, untilId }: StoredSelection,
  after: string,
  before: string | undefined,
): SelectionSql {
  const { value, values } = createValues()
  const conditions = [`e.id > ${value(after)}::uuid`, `e.id <= ${value(untilId)}::uuid`]
  // A constant, so that only its partition is planned.
  if (before !== undefined) conditions.push(`e.id < '${before}'`)
  const tenant = tenantId === undefined ? undefined : value(tenantId)
  if (tenant !== undefined) conditions.push(`e.tenant_id = ${tenant}`)
  if (correlationId !== undefined) conditions.push(`e.correlation_id = ${value(correlationId)}`)
  if (subject !== undefined) {
    const text = `${value(subject)}::text`
    conditions.push(
      `hashtextextended(e.subject, hashtextextended(e.tenant_id, 0)) = hashtextextended(${text}, hashtextextended(${tenant}::text, 0)) and e.subject = ${text}`,
    )
  }
  const [onlyType] = types ?? []
  const isOneType = types?.length === 1 && onlyType !== undefined && !isWildcard(onlyType)
  if (isOneType && tenantId === undefined) conditions.push(`e.type = ${value(onlyType)}`)
  const conditionValues = [...values]
  const filters = [
    'e.erased_at is null',
    'not exists (select from bus.cancellations c where c.event_id = e.id)',
  ]
  if (types !== undefined && !(isOneType && tenantId === undefined)) {
    const names = value(types.filter((type) => !isWildcard(type)))
    const patterns = value(types.filter(isWildcard))
    filters.push(
      `(e.type = any (${names}::text[]) or exists (select from unnest(${patterns}::text[]) as p (pattern) where bus.pattern_matches(p.pattern, e.type)))`,
    )
  }
  return { conditions: conditions.join(' and '), conditionValues, filters: filters.join(' and '), values }
}

function nextMonth(ms: number): number {
  const time = new Date(ms)
  return Date.UTC(time.getUTCFullYear(), time.getUTCMonth() + 1)
}
