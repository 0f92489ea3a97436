import { kindOf } from '../../../foundation/options.ts'
import { throughNodePostgres, type NodePostgresClient } from '../caller-connection.ts'
import { adapt, notATransaction, type AdaptedTransaction } from '../caller-transaction.ts'

/**
 * A client of node-postgres, from `pool.connect()` or `new pg.Client()`. Not a pool: each statement of a pool may use
 * another connection.
 */
export interface PgClient {
  query(text: string, values?: unknown[]): Promise<unknown>
  readonly totalCount?: never
}

/**
 * Adapts the open transaction of a node-postgres (`pg`) client, after BEGIN. Call it again for each transaction, or for
 * each publish: the result stands for the transaction in which it is first used, and is refused in any other
 * transaction of that client.
 *
 * @example
 * ```ts
 * await client.query('begin')
 * await client.query('insert into payments (id, amount_cents) values ($1, $2)', [paymentId, amountCents])
 * await bus.publish(fromPg(client), { type: 'payment.paid', tenantId: 'acme', payload: { paymentId, amountCents } })
 * await client.query('commit')
 * ```
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: at once for a pool; from publish for a client outside a
 *   transaction
 */
export function fromPg(client: PgClient): AdaptedTransaction {
  const { query, totalCount } = (client ?? {}) as Partial<Record<keyof PgClient, unknown>>
  if (typeof query !== 'function') throw notATransaction('fromPg', expected, kindOf(client))
  if (totalCount !== undefined) throw notATransaction('fromPg', expected, 'a pool')
  return adapt(throughNodePostgres(client as unknown as NodePostgresClient))
}

const expected = 'a node-postgres client from pool.connect(), after BEGIN'
