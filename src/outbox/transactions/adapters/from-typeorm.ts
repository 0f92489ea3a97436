import { TransactionError } from '../../../foundation/errors.ts'
import { kindOf } from '../../../foundation/options.ts'
import { replyIn, textOf } from '../caller-connection.ts'
import { adapt, notATransaction, type AdaptedTransaction } from '../caller-transaction.ts'

/** The entity manager that TypeORM passes to the callback of `dataSource.transaction`, or the `manager` of a query runner. */
export interface TypeOrmTransaction {
  query(query: string, parameters?: unknown[]): Promise<unknown>
  readonly queryRunner?: { readonly isTransactionActive: boolean } | undefined
}

/**
 * Adapts the transaction of a TypeORM entity manager on PostgreSQL. The manager of a query runner serves one
 * transaction after another: the result stands for the transaction in which it is first used.
 *
 * @example
 * ```ts
 * await dataSource.transaction(async (manager) => {
 *   await manager.insert(Payment, { id: paymentId, amountCents })
 *   await bus.publish(fromTypeOrm(manager), { type: 'payment.paid', tenantId: 'acme', payload: { paymentId, amountCents } })
 * })
 * ```
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: at once for a manager outside a transaction; from
 *   publish for a transaction that has ended
 */
export function fromTypeOrm(manager: TypeOrmTransaction): AdaptedTransaction {
  const { query } = (manager ?? {}) as Partial<Record<keyof TypeOrmTransaction, unknown>>
  if (typeof query !== 'function') throw notATransaction('fromTypeOrm', expected, kindOf(manager))
  if (!isOpen(manager)) throw notATransaction('fromTypeOrm', expected, 'a manager outside a transaction')
  return adapt({
    async send(sent) {
      if (!isOpen(manager)) throw new TransactionError('Expected the `manager` of an open transaction')
      return replyIn(await manager.query(textOf(sent), [...sent.values]))
    },
  })
}

const expected = 'the `manager` of dataSource.transaction(async (manager) => …)'

function isOpen({ queryRunner }: TypeOrmTransaction): boolean {
  return queryRunner?.isTransactionActive === true
}
