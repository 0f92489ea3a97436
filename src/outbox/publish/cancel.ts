import {
  assertObject,
  assertTextOption,
  describe,
  refuseUnknownKeys,
  invalidOption,
} from '../../foundation/options.ts'
import type { Executor } from '../../database/database.ts'
import { statement } from '../transactions/caller-connection.ts'
import {
  assertTransaction,
  callInTransaction,
  type CallerTransaction,
} from '../transactions/caller-transaction.ts'
import { uuidShape } from '../../foundation/text.ts'
import { tellOperation } from '../../telemetry/tell-operation.ts'
import type { Telemetry } from '../../telemetry/telemetry.ts'

/**
 * Cancels a scheduled event in the caller's transaction, with the same proof of an open transaction as
 * `publishInTransaction`.
 *
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: nothing was written
 */
async function cancelInTransaction(
  tx: CallerTransaction,
  { id, tenantId }: EventReference,
): Promise<boolean> {
  assertTransaction(tx, 'bus.cancel(tx, id)')
  const answer = await callInTransaction(
    tx,
    (proof) =>
      statement`select bus.cancel_in_transaction(${proof}::pg_catalog.text, ${id}::pg_catalog.uuid, ${tenantId ?? null}::pg_catalog.text) as reply`,
  )
  return answer === 'true'
}

/** Cancels a scheduled event in a transaction of its own. */
async function cancelOnItsOwn(executor: Executor, { id, tenantId }: EventReference): Promise<boolean> {
  const { rows } = await executor.query<{ cancelled: boolean }>(
    'select bus.cancel($1::uuid, $2::text) as cancelled',
    [id, tenantId ?? null],
  )
  return rows[0]?.cancelled === true
}

/** Options of `cancel`. */
export interface CancelOptions {
  /** Cancels the event only if it belongs to this tenant. */
  readonly tenantId?: string | undefined
}

/** `cancel(id)`, or with a transaction as the first argument. */
export interface CancelCall {
  (id: string, options?: CancelOptions): Promise<boolean>
  (tx: CallerTransaction, id: string, options?: CancelOptions): Promise<boolean>
}

/** Creates `bus.cancel`. */
export function createCancel(executor: Executor, { spans, recorder }: Telemetry): CancelCall {
  return async (
    first: string | CallerTransaction,
    second?: string | CancelOptions,
    third: CancelOptions = {},
  ): Promise<boolean> =>
    tellOperation(recorder, { operation: 'cancel' }, spans.cancel(idOf(first, second)), async () =>
      typeof first === 'string'
        ? cancelOnItsOwn(executor, checkReference(first, second ?? {}))
        : cancelInTransaction(first, checkReference(second, third)),
    )
}

/** The id, where it is one. */
function idOf(first: unknown, second: unknown): string | undefined {
  const id = typeof first === 'string' ? first : second
  return typeof id === 'string' && uuidShape.test(id) ? id : undefined
}

/** The event to cancel; with a tenant, only if it belongs to that tenant. */
interface EventReference {
  readonly id: string
  readonly tenantId: string | undefined
}

/** Validates an event id and the options passed with it. */
function checkReference(id: unknown, options: unknown): EventReference {
  if (typeof id !== 'string' || !uuidShape.test(id))
    throw invalidOption(`Expected the id of an event (a uuid), got ${describe(id)}`)
  assertObject('options', options)
  refuseUnknownKeys(options, ['tenantId'], 'cancel')
  const { tenantId } = options as { tenantId?: unknown }
  if (tenantId === undefined) return { id, tenantId }
  assertTextOption('tenantId', tenantId)
  return { id, tenantId }
}
