import { TransactionError } from '../../../foundation/errors.ts'
import { kindOf } from '../../../foundation/options.ts'
import { replyIn, textOf } from '../caller-connection.ts'
import { adapt, notATransaction, type AdaptedTransaction } from '../caller-transaction.ts'

/** The argument of the callback of `db.transaction().execute`, or the result of `db.startTransaction().execute()`. */
export interface KyselyTransaction {
  readonly isTransaction: true
  executeQuery(query: never): Promise<unknown>
  withoutPlugins(): unknown
}

/**
 * Adapts a Kysely transaction, of any PostgreSQL dialect. Plugins do not see the bus's statements.
 *
 * @example
 * ```ts
 * await kysely.transaction().execute(async (trx) => {
 *   await trx.insertInto('payments').values({ id: paymentId, amountCents }).execute()
 *   await bus.publish(fromKysely(trx), { type: 'payment.paid', tenantId: 'acme', payload: { paymentId, amountCents } })
 * })
 * ```
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: at once for Kysely's own handle; from publish for a
 *   transaction that has ended
 */
export function fromKysely(trx: KyselyTransaction): AdaptedTransaction {
  const { isTransaction, executeQuery } = (trx ?? {}) as Partial<Record<keyof KyselyTransaction, unknown>>
  if (typeof executeQuery !== 'function') throw notATransaction('fromKysely', expected, kindOf(trx))
  if (isTransaction !== true) throw notATransaction('fromKysely', expected, 'a handle outside a transaction')
  const executor = trx.withoutPlugins() as QueryExecutor
  return adapt(
    {
      async send(sent) {
        const { rows } = await executor.executeQuery(rawQuery(textOf(sent), sent.values)).catch(rethrow)
        return replyIn(rows)
      },
    },
    trx,
  )
}

const expected = 'the `trx` of db.transaction().execute(async (trx) => …)'

interface QueryExecutor {
  readonly executeQuery: (query: object) => Promise<{ readonly rows: unknown }>
}

/** The result of `CompiledQuery.raw`. */
function rawQuery(sql: string, parameters: readonly unknown[]): object {
  return {
    sql,
    parameters,
    query: { kind: 'RawNode', sqlFragments: [sql], parameters: [] },
    queryId: { queryId: 'bossbus' },
  }
}

/** Kysely detects itself that a transaction has ended, and reports it only in the message. */
function rethrow(error: unknown): never {
  const { code, message } = (error ?? {}) as { readonly code?: unknown; readonly message?: unknown }
  if (code === undefined && typeof message === 'string' && message.startsWith('Transaction is already '))
    throw new TransactionError(`Expected the \`trx\` of an open transaction: ${message}`)
  throw error
}
