import { writeAudit } from '../audit/audit.ts'
import type { Executor } from '../database/database.ts'
import { operationsPayload, wakeSql } from '../outbox/relay/notifier.ts'

export type OperationKind = 'redrive' | 'discard' | 'replay' | 'catch-up' | 'remove'

/**
 * `stopped`: it has stopped by itself, because it would do harm to go on; `stateReason` says why. It can be resumed, like a paused one.
 */
export type OperationState = 'running' | 'paused' | 'stopped' | 'done' | 'cancelled'

/** Work over many events that goes on by itself, in any process that has started, until it is done, and after restarts. */
export interface Operation {
  readonly id: string
  readonly kind: OperationKind
  readonly state: OperationState
  /** Who asked for it, and why. */
  readonly by: string
  readonly reason: string | undefined
  /** Who paused, resumed or cancelled it last. Undefined if nobody did. */
  readonly stateBy: string | undefined
  /** Why; or why it has stopped, or ended otherwise than was asked for. */
  readonly stateReason: string | undefined
  /** Which events it is about, as the caller named them. */
  readonly selection: Readonly<Record<string, unknown>>
  /** Its options, but for those that have a field of their own here. */
  readonly options: Readonly<Record<string, unknown>>
  /** The names of the subscriptions that it is about. */
  readonly subscriptions: readonly string[]
  /** Events a second, at most. Undefined: no limit. */
  readonly rate: number | undefined
  /** What the dry run before it counted. */
  readonly expected: Readonly<Record<string, unknown>> | undefined
  /** Events that it is about, where that is known. */
  readonly totalCount: number | undefined
  /** What it has done so far, by outcome. */
  readonly counts: Readonly<Record<string, number>>
  /** The last error of a part of it, while that part is tried again. */
  readonly error: string | undefined
  readonly createdAt: Date
  readonly updatedAt: Date
  /** When it was done or cancelled. */
  readonly finishedAt: Date | undefined
}

/** An operation as its parts see it. */
export interface RunningOperation {
  readonly id: string
  readonly kind: OperationKind
  readonly actor: string
  readonly reason: string | null
  readonly selection: Readonly<Record<string, unknown>>
  readonly options: Readonly<Record<string, unknown>>
  readonly subscription_ids: readonly number[]
  readonly rate: number | null
  readonly counts: Readonly<Record<string, number>>
  /** What the last part returned. An empty object before the first part. */
  readonly progress: Readonly<Record<string, unknown>>
}

/** What is asked for. */
export interface NewOperation {
  readonly kind: OperationKind
  readonly by: string
  readonly reason?: string | undefined
  /** For the audit, such as `deadLetters.redrive`. */
  readonly action: string
  readonly selection: object
  readonly options?: object | undefined
  readonly subscriptionIds: readonly number[]
  /** The name of the subscription, if there is one. */
  readonly subscription?: string | undefined
  readonly rate?: number | undefined
  readonly expected?: object | undefined
  readonly totalCount?: number | undefined
}

/** Writes an operation with its audit record, and tells every process. The caller's transaction decides. Returns the id. */
export async function insertOperation(executor: Executor, operation: NewOperation): Promise<string> {
  const { rows: ids } = await executor.query<{ id: string }>('select bus.uuid_v7() as id')
  const id = ids[0]?.id ?? ''
  await writeAudit(executor, { ...operation, operationId: id })
  await executor.query(
    `insert into bus.operations (id, kind, actor, reason, selection, options, subscription_ids, rate, expected, total)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
    [
      id,
      operation.kind,
      operation.by,
      operation.reason ?? null,
      JSON.stringify(operation.selection),
      JSON.stringify(operation.options ?? {}),
      operation.subscriptionIds,
      operation.rate ?? null,
      operation.expected === undefined ? null : JSON.stringify(operation.expected),
      operation.totalCount ?? null,
    ],
  )
  await executor.query(wakeSql, [operationsPayload])
  return id
}
