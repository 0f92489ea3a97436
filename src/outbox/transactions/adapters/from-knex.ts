import { TransactionError } from '../../../foundation/errors.ts'
import { kindOf } from '../../../foundation/options.ts'
import { unparsed, replyOf, type Statement } from '../caller-connection.ts'
import { adapt, notATransaction, type AdaptedTransaction } from '../caller-transaction.ts'

/** The argument of the callback of `knex.transaction`, or the result of the call without a callback. */
export interface KnexTransaction {
  readonly raw: (...args: never[]) => unknown
  readonly isCompleted: () => boolean
}

/**
 * Adapts a Knex transaction, of its `pg` dialect.
 *
 * @example
 * ```ts
 * await knex.transaction(async (trx) => {
 *   await trx('payments').insert({ id: paymentId, amountCents })
 *   await bus.publish(fromKnex(trx), { type: 'payment.paid', tenantId: 'acme', payload: { paymentId, amountCents } })
 * })
 * ```
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: at once for Knex itself; from publish for a transaction
 *   that has ended
 */
export function fromKnex(trx: KnexTransaction): AdaptedTransaction {
  const { raw, isCompleted } = (trx ?? {}) as Partial<Record<keyof KnexTransaction, unknown>>
  if (typeof raw !== 'function') throw notATransaction('fromKnex', expected, kindOf(trx))
  if (typeof isCompleted !== 'function')
    throw notATransaction('fromKnex', expected, 'a handle outside a transaction')
  return adapt(
    {
      async send(sent) {
        if (trx.isCompleted()) throw new TransactionError('Expected the `trx` of an open transaction')
        const query = (trx as unknown as RawQueries).raw(questionMarks(sent), sent.values)
        const { rows } = await query.options(unparsed).then((result) => result, rethrow)
        return replyOf(rows[0]?.[0])
      },
    },
    trx,
  )
}

const expected = 'the `trx` of knex.transaction(async (trx) => …)'

/** Knex's `raw`: its options are passed to node-postgres with the statement. */
interface RawQueries {
  readonly raw: (
    text: string,
    values: readonly (string | null)[],
  ) => {
    readonly options: (
      options: typeof unparsed,
    ) => PromiseLike<{ readonly rows: readonly (readonly unknown[])[] }>
  }
}

/** Knex substitutes values for question marks; no statement of the bus contains one. */
function questionMarks({ strings }: Statement): string {
  return strings.join('?')
}

/** The end of each statement of the bus. */
const statementEnd = ' as reply - '

/** Knex prepends the statement to the server's message, which would prevent the redaction of quoted values. */
function rethrow(error: unknown): never {
  if (error instanceof Error) {
    const end = error.message.lastIndexOf(statementEnd)
    if (end !== -1) error.message = error.message.slice(end + statementEnd.length)
  }
  throw error
}
