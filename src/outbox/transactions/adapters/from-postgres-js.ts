import { kindOf } from '../../../foundation/options.ts'
import { throughPostgresJs, type PostgresJsClient } from '../caller-connection.ts'
import { adapt, notATransaction, type AdaptedTransaction } from '../caller-transaction.ts'

/** The `sql` that postgres.js passes to the callback of `sql.begin` or `sql.savepoint`. */
export interface PostgresJsTransaction {
  readonly unsafe: (...args: never[]) => unknown
  readonly savepoint: (...args: never[]) => unknown
}

/**
 * Adapts a transaction of postgres.js (`postgres`).
 *
 * @example
 * ```ts
 * await sql.begin(async (sql) => {
 *   await sql`insert into payments (id, amount_cents) values (${paymentId}, ${amountCents})`
 *   await bus.publish(fromPostgresJs(sql), { type: 'payment.paid', tenantId: 'acme', payload: { paymentId, amountCents } })
 * })
 * ```
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: at once for the client itself; from publish for a
 *   transaction that has ended
 */
export function fromPostgresJs(sql: PostgresJsTransaction): AdaptedTransaction {
  const { unsafe, savepoint } = (sql ?? {}) as Partial<Record<keyof PostgresJsTransaction, unknown>>
  if (typeof unsafe !== 'function') throw notATransaction('fromPostgresJs', expected, kindOf(sql))
  if (typeof savepoint !== 'function')
    throw notATransaction('fromPostgresJs', expected, 'a client outside a transaction')
  return adapt(throughPostgresJs(sql as unknown as PostgresJsClient), sql)
}

const expected = 'the `sql` of sql.begin(async (sql) => …)'
