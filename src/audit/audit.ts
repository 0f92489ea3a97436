import type { Database, Executor } from '../database/database.ts'
import { createValues } from '../database/statement-values.ts'
import { limits } from '../foundation/limits.ts'
import {
  assertObject,
  idOption,
  integerOption,
  refuseUnknownKeys,
  textOption,
} from '../foundation/options.ts'

/** The bounds of the person or program of a change, and of its reason: everywhere the same. */
export const actorLength = { max: 255 }
export const reasonLength = { min: 0, max: 2000 }

/** Who makes a change, and why. */
export interface Actor {
  readonly by: string
  readonly reason: string | undefined
}

/** `by` and `reason` of a call's options. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function checkActor({ by, reason }: { readonly by: unknown; readonly reason?: unknown }): Actor {
  return {
    by: textOption('by', by, actorLength),
    reason: reason === undefined ? undefined : textOption('reason', reason, reasonLength),
  }
}

/** A change by a person or a program. */
export interface Change {
  /** The person or program. */
  readonly by: string
  /** What is done, such as `subscriptions.pause`. */
  readonly action: string
  readonly subscription?: string | undefined
  readonly tenantId?: string | undefined
  /** The id of the event, if it concerns one. */
  readonly eventId?: string | undefined
  /** The operation that does the work. */
  readonly operationId?: string | undefined
  readonly reason?: string | undefined
  /** Which events or rows it is about, as the caller named them. */
  readonly selection?: object | undefined
  /** What is changed, from what to what. */
  readonly change?: object | undefined
  /** What a dry run counted. */
  readonly expected?: object | undefined
}

/** A record of `bus.audit`. */
export interface AuditRecord extends Change {
  readonly id: string
  readonly at: Date
  /** What came of it. Undefined while it is under way, and where there is nothing to say. */
  readonly outcome: object | undefined
  /** Undefined while it is under way. */
  readonly finishedAt: Date | undefined
}

/** Which records to read. */
export interface AuditFilter {
  readonly by?: string | undefined
  readonly action?: string | undefined
  /** The changes of a subscription by its name, and those under names that it had before it was renamed. */
  readonly subscription?: string | undefined
  readonly eventId?: string | undefined
  readonly operationId?: string | undefined
  /** Only records older than this one: the `id` of the last record of the page before. */
  readonly after?: string | undefined
  /** 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
}

/** Reads the record of changes. */
export interface Audit {
  /** The changes by people and programs, latest first. @throws a ConfigurationError `BUS_INVALID_OPTION` */
  list: (filter?: AuditFilter) => Promise<AuditRecord[]>
}

/**
 * Records a change, in the transaction that makes it and before it, so that no change is without its record.
 *
 * @param outcome - if it is known already; otherwise the record is under way until {@link finishAudit}
 * @returns the id of the record
 */
export async function writeAudit(executor: Executor, change: Change, outcome?: object): Promise<string> {
  const { rows } = await executor.query<{ id: string }>(
    `insert into bus.audit (actor, action, subscription, tenant_id, event_id, operation_id, reason, selection, change, expected, outcome, finished_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::jsonb, case when $11::jsonb is not null then now() end)
     returning id`,
    [
      change.by,
      change.action,
      change.subscription ?? null,
      change.tenantId ?? null,
      change.eventId ?? null,
      change.operationId ?? null,
      change.reason ?? null,
      asJson(change.selection),
      asJson(change.change),
      asJson(change.expected),
      asJson(outcome),
    ],
  )
  return rows[0]?.id ?? ''
}

/** Records what came of the change that started an operation. Repeating it changes nothing. */
export async function finishAudit(executor: Executor, operationId: string, outcome: object): Promise<void> {
  await executor.query(
    'update bus.audit set outcome = $2, finished_at = now() where operation_id = $1 and finished_at is null',
    [operationId, asJson(outcome)],
  )
}

/** Records what came of a change that took several transactions. */
export async function finishAuditRecord(executor: Executor, id: string, outcome: object): Promise<void> {
  await executor.query(
    'update bus.audit set outcome = $2, finished_at = now() where id = $1 and finished_at is null',
    [id, asJson(outcome)],
  )
}

function asJson(value: object | undefined): string | null {
  return value === undefined ? null : JSON.stringify(value)
}

interface AuditRow extends Record<string, unknown> {
  readonly id: string
  readonly at: Date
  readonly actor: string
  readonly action: string
  readonly subscription: string | null
  readonly tenant_id: string | null
  readonly event_id: string | null
  readonly operation_id: string | null
  readonly reason: string | null
  readonly selection: object | null
  readonly change: object | null
  readonly expected: object | null
  readonly outcome: object | null
  readonly finished_at: Date | null
}

const textColumns = [
  ['by', 'actor'],
  ['action', 'action'],
] as const

const idComparisons = [
  ['eventId', 'event_id ='],
  ['operationId', 'operation_id ='],
  ['after', 'id <'],
] as const

export function createAudit(database: Pick<Database, 'query'>): Audit {
  return {
    async list(filter = {}) {
      assertObject('a filter like { action, subscription, limit }', filter)
      const known = [...textColumns, ...idComparisons].map(([name]) => name)
      refuseUnknownKeys(filter, [...known, 'subscription', 'limit'], 'audit.list')
      const { subscription } = filter
      const count = integerOption('limit', filter.limit, limits.listLimit)
      const conditions: string[] = []
      const { value, values } = createValues()
      const add = (comparison: string, given: unknown): void =>
        void conditions.push(`${comparison} ${value(given)}`)
      for (const [name, column] of textColumns)
        if (filter[name] !== undefined) add(`${column} =`, textOption(name, filter[name], actorLength))
      for (const [name, comparison] of idComparisons)
        if (filter[name] !== undefined) add(comparison, idOption(name, filter[name]))
      if (subscription !== undefined) {
        const name = textOption('subscription', subscription, actorLength)
        const ofNames = (await readNames(database, name)).map(
          ({ name: its, from, to }) =>
            `(subscription = ${value(its)} and id > ${value(from)}::uuid and id <= ${value(to)}::uuid)`,
        )
        conditions.push(`(${ofNames.join(' or ')})`)
      }
      const { rows } = await database.query<AuditRow>(
        `select id, at, actor, action, subscription, tenant_id, event_id, operation_id, reason, selection, change, expected, outcome, finished_at
         from bus.audit where ${conditions.length === 0 ? 'true' : conditions.join(' and ')} order by id desc limit ${count}`,
        values,
      )
      return rows.map(toRecord)
    },
  }
}

/** A name that a subscription had, and the ids of the records of this time. */
interface NameSpan {
  readonly name: string
  /** The record of the rename to it. */
  readonly from: string
  /** The record of the rename from it. */
  readonly to: string
}

const lowestRecord = '00000000-0000-0000-0000-000000000000'
const highestRecord = 'ffffffff-ffff-ffff-ffff-ffffffffffff'

/** Earlier names that are followed, at most. */
const maxNames = 20

/**
 * The names of the subscription that has, or had last, a name: what is recorded under the name at any time, and of each earlier name what was
 * recorded while it had that. Another subscription may have had it before or since.
 */
async function readNames(database: Pick<Database, 'query'>, name: string): Promise<readonly NameSpan[]> {
  const spans: NameSpan[] = [{ name, from: lowestRecord, to: highestRecord }]
  let renamed = await readRename(database, name, highestRecord)
  while (renamed !== undefined && spans.length <= maxNames) {
    const before = await readRename(database, renamed.from, renamed.id)
    spans.push({ name: renamed.from, from: before?.id ?? lowestRecord, to: renamed.id })
    renamed = before
  }
  return spans
}

/** The latest rename to a name, before a record. */
async function readRename(
  database: Pick<Database, 'query'>,
  to: string,
  before: string,
): Promise<{ readonly id: string; readonly from: string } | undefined> {
  const { rows } = await database.query<{ id: string; from: string }>(
    `select id, change ->> 'from' as from from bus.audit
     where action = 'subscriptions.rename' and change ->> 'to' = $1 and id < $2::uuid order by id desc limit 1`,
    [to, before],
  )
  return rows[0]
}

function toRecord(row: AuditRow): AuditRecord {
  return {
    id: row.id,
    at: row.at,
    by: row.actor,
    action: row.action,
    subscription: row.subscription ?? undefined,
    tenantId: row.tenant_id ?? undefined,
    eventId: row.event_id ?? undefined,
    operationId: row.operation_id ?? undefined,
    reason: row.reason ?? undefined,
    selection: row.selection ?? undefined,
    change: row.change ?? undefined,
    expected: row.expected ?? undefined,
    outcome: row.outcome ?? undefined,
    finishedAt: row.finished_at ?? undefined,
  }
}
