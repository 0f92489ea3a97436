import { checkActor, finishAudit, writeAudit } from '../audit/audit.ts'
import type { Database } from '../database/database.ts'
import { createValues } from '../database/statement-values.ts'
import { endCatchUp } from '../delivery/registry/catch-up.ts'
import { idsOfNameSql, refuseUnknownSubscription } from '../delivery/registry/find-subscription.ts'
import { ConfigurationError } from '../foundation/errors.ts'
import { limits } from '../foundation/limits.ts'
import {
  assertObject,
  assertTextOption,
  describe,
  idOption,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../foundation/options.ts'
import { operationsPayload, wakeSql } from '../outbox/relay/notifier.ts'
import type { Operation, OperationKind, OperationState } from './operation.ts'
import { commonFields, type OperationRow } from './operation-row.ts'

const kinds: readonly OperationKind[] = ['redrive', 'discard', 'replay', 'catch-up', 'remove']
const states: readonly OperationState[] = ['running', 'paused', 'stopped', 'done', 'cancelled']

/** Which operations to read. */
export interface OperationFilter {
  readonly kind?: OperationKind | undefined
  readonly state?: OperationState | undefined
  readonly subscription?: string | undefined
  /** Only operations older than this one: the `id` of the last one of the page before. */
  readonly after?: string | undefined
  /** 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
}

/** Who pauses, resumes or cancels an operation, and why. */
export interface OperationChange {
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
}

/** Reads and steers the operations: redrives, discards, replays, catching up and removals, of all processes. */
export interface Operations {
  /** The operations, latest first. @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION` */
  list: (filter?: OperationFilter) => Promise<Operation[]>
  /** @throws a {@link ConfigurationError} `BUS_OPERATION_NOT_FOUND`, `BUS_INVALID_OPTION` */
  get: (id: string) => Promise<Operation>
  /**
   * Holds an operation: no further part of it begins. What its parts have done so far stays, and is delivered. Resolves to `false`, and
   * changes nothing, if it does not run.
   * @throws a {@link ConfigurationError} `BUS_OPERATION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  pause: (id: string, change: OperationChange) => Promise<boolean>
  /**
   * Goes on with an operation that was paused, or has stopped by itself. Resolves to `false`, and changes nothing, if it runs, or has ended.
   * @throws a {@link ConfigurationError} `BUS_OPERATION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  resume: (id: string, change: OperationChange) => Promise<boolean>
  /**
   * Ends an operation before it is done. What its parts have done so far stays, but for events of a replay that have not begun: those are
   * dropped. Resolves to `false`, and changes nothing, if it has ended.
   * @throws a {@link ConfigurationError} `BUS_OPERATION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  cancel: (id: string, change: OperationChange) => Promise<boolean>
}

interface OperatorRow extends OperationRow {
  readonly actor: string
  readonly reason: string | null
  readonly state_actor: string | null
  readonly state_reason: string | null
  readonly options: Readonly<Record<string, unknown>>
  readonly error: string | null
}

const selectSql = `select o.id, o.kind, o.state, o.actor, o.reason, o.state_actor, o.state_reason, o.selection, o.options,
    array(select s.name from (
        select id, name from bus.subscriptions union select id, name from bus.removed_subscriptions
      ) s where s.id = any (o.subscription_ids) order by s.name collate "C") as subscriptions,
    o.rate, o.expected, o.total, o.counts, o.error,
    case when o.kind = 'replay' then (
      select jsonb_build_object('delivered', sum(x.delivered), 'expired', sum(x.expired), 'dead', sum(x.dead))
      from bus.replays r join bus.replay_outcomes x on x.replay_id = r.id where r.operation_id = o.id) end as uncounted, o.created_at, o.updated_at, o.finished_at
  from bus.operations o`

/** What a person may do to an operation: from which states, and to which. */
const steps = {
  pause: { from: ['running'], to: 'paused' },
  resume: { from: ['paused', 'stopped'], to: 'running' },
  cancel: { from: ['running', 'paused', 'stopped'], to: 'cancelled' },
} as const

export function createOperations(database: Database): Operations {
  async function get(id: string): Promise<Operation> {
    const { rows } = await database.query<OperatorRow>(`${selectSql} where o.id = $1`, [idOption('id', id)])
    if (rows[0] !== undefined) return toOperation(rows[0])
    throw new ConfigurationError(
      'BUS_OPERATION_NOT_FOUND',
      `There is no operation ${describe(id)} in this database`,
    )
  }

  /** Waits for the part under way, which has locked the row. */
  async function change(step: keyof typeof steps, id: string, given: OperationChange): Promise<boolean> {
    const { by, reason } = checkChange(given, `operations.${step}`)
    const { kind } = await get(id)
    const { from, to } = steps[step]
    return database.transaction(async (client) => {
      const { rows } = await client.query<{
        state: OperationState
        counts: object
        subscription_ids: number[]
      }>('select state, counts, subscription_ids from bus.operations where id = $1 for update', [id])
      const row = rows[0]
      if (row === undefined || !(from as readonly OperationState[]).includes(row.state)) return false
      await writeAudit(
        client,
        {
          by,
          reason,
          action: `operations.${step}`,
          selection: { operationId: id, kind },
          change: { from: row.state, to },
        },
        {},
      )
      await client.query(
        `update bus.operations
         set state = $2, state_actor = $3, state_reason = $4, error_count = 0, next_part_at = now(), updated_at = clock_timestamp(),
           finished_at = case when $2 = 'cancelled' then clock_timestamp() end
         where id = $1`,
        [id, to, by, reason ?? null],
      )
      // New events do not wait for the rest of the past.
      if (to === 'cancelled' && kind === 'catch-up')
        for (const subscriptionId of row.subscription_ids) await endCatchUp(client, subscriptionId)
      if (to === 'cancelled') await finishAudit(client, id, { state: to, counts: row.counts })
      await client.query(wakeSql, [operationsPayload])
      return true
    })
  }

  return {
    async list(filter = {}) {
      const { conditions, values, limit } = checkFilter(filter)
      const { rows } = await database.query<OperatorRow>(
        `${selectSql} where ${conditions} order by o.id desc limit ${limit}`,
        values,
      )
      if (rows.length === 0) await refuseUnknownSubscription(database, filter.subscription)
      return rows.map(toOperation)
    },
    get,
    pause: async (id, given) => change('pause', id, given),
    resume: async (id, given) => change('resume', id, given),
    cancel: async (id, given) => change('cancel', id, given),
  }
}

function checkFilter(filter: OperationFilter): {
  readonly conditions: string
  readonly values: unknown[]
  readonly limit: number
} {
  assertObject('a filter like { kind, state, limit }', filter)
  refuseUnknownKeys(filter, ['kind', 'state', 'subscription', 'after', 'limit'], 'operations.list')
  const { kind, state, subscription, after, limit } = filter
  const conditions: string[] = []
  const { value, values } = createValues()
  if (kind !== undefined) conditions.push(`o.kind = ${value(oneOf('kind', kind, kinds))}`)
  if (state !== undefined) conditions.push(`o.state = ${value(oneOf('state', state, states))}`)
  if (subscription !== undefined) {
    assertTextOption('subscription', subscription, { max: limits.subscriptionNameLength })
    conditions.push(`o.subscription_ids && ${idsOfNameSql(`${value(subscription)}::text`)}`)
  }
  if (after !== undefined) conditions.push(`o.id < ${value(idOption('after', after))}`)
  return {
    conditions: conditions.length === 0 ? 'true' : conditions.join(' and '),
    values,
    limit: integerOption('limit', limit, limits.listLimit),
  }
}

function oneOf<T extends string>(name: string, value: T, known: readonly T[]): T {
  if (known.includes(value)) return value
  throw invalidOption(`Expected \`${name}\` to be one of ${known.join(', ')}, got ${describe(value)}`, name)
}

/** Who asks for a change, and why. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
function checkChange(given: OperationChange, call: string): OperationChange {
  assertObject('options like { by, reason }', given)
  refuseUnknownKeys(given, ['by', 'reason'], call)
  return checkActor(given)
}

function toOperation(row: OperatorRow): Operation {
  return {
    ...commonFields(row),
    by: row.actor,
    reason: row.reason ?? undefined,
    stateBy: row.state_actor ?? undefined,
    stateReason: row.state_reason ?? undefined,
    options: row.options,
    error: row.error ?? undefined,
  }
}
