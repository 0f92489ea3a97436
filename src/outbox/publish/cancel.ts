import {
  assertObject,
  assertTextOption,
  describe,
  refuseUnknownKeys,
  invalidOption,
} from '../../foundation/options.ts'
import { checkActor, writeAudit, type Actor } from '../../audit/audit.ts'
import type { Database, Executor } from '../../database/database.ts'
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

/** The same for a person or a program that is recorded. */
async function cancelRecorded(database: Database, reference: EventReference, actor: Actor): Promise<boolean> {
  return database.transaction(async (client) => {
    const isCancelled = await cancelOnItsOwn(client, reference)
    const { id: eventId, tenantId } = reference
    if (isCancelled) await writeAudit(client, { ...actor, action: 'cancel', eventId, tenantId }, {})
    return isCancelled
  })
}

/** Options of `cancel`. */
export interface CancelOptions {
  /** Cancels the event only if it belongs to this tenant. */
  readonly tenantId?: string | undefined
}

/** Options of `cancel` without a transaction. */
export interface RecordedCancelOptions extends CancelOptions {
  /** The person or program that cancels it, 1 to 255 characters. Recorded in `bus.audit`. @defaultValue nothing is recorded */
  readonly by?: string | undefined
  /** Up to 2,000 characters. Recorded, together with `by`. */
  readonly reason?: string | undefined
}

/** `cancel(id)`, or with a transaction as the first argument. */
export interface CancelCall {
  (id: string, options?: RecordedCancelOptions): Promise<boolean>
  (tx: CallerTransaction, id: string, options?: CancelOptions): Promise<boolean>
}

/** Creates `bus.cancel`. */
export function createCancel(database: Database, { spans, recorder }: Telemetry): CancelCall {
  return async (
    first: string | CallerTransaction,
    second?: string | RecordedCancelOptions,
    third: CancelOptions = {},
  ): Promise<boolean> => {
    const cancel = async (): Promise<boolean> => {
      if (typeof first !== 'string') return cancelInTransaction(first, checkReference(second, third, []))
      const reference = checkReference(first, second ?? {}, ['by', 'reason'])
      const { by, reason } = (second ?? {}) as RecordedCancelOptions
      if (by === undefined && reason === undefined) return cancelOnItsOwn(database, reference)
      return cancelRecorded(database, reference, checkActor({ by, reason }))
    }
    if (!spans.isOn && !recorder.isOn) return cancel()
    return tellOperation(recorder, { operation: 'cancel' }, spans.cancel(idOf(first, second)), cancel)
  }
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
function checkReference(id: unknown, options: unknown, more: readonly string[]): EventReference {
  if (typeof id !== 'string' || !uuidShape.test(id))
    throw invalidOption(`Expected the id of an event (a uuid), got ${describe(id)}`)
  assertObject('options', options)
  refuseUnknownKeys(options, ['tenantId', ...more], 'cancel')
  const { tenantId } = options as { tenantId?: unknown }
  if (tenantId === undefined) return { id, tenantId }
  assertTextOption('tenantId', tenantId)
  return { id, tenantId }
}
