import type { withReplicas } from 'drizzle-orm/pg-core'
import type { DrizzleTransaction } from './caller-connection.ts'

// Derived from a name that exists in 0.44 to 1.x: its class has a different name in each of them.

/** A Drizzle handle of any PostgreSQL driver. */
type AnyHandle = Parameters<typeof withReplicas>[0]

/** The methods that do not depend on the driver and the tables. */
type Querying = Pick<
  AnyHandle,
  Extract<
    keyof AnyHandle,
    | 'select'
    | 'selectDistinct'
    | 'selectDistinctOn'
    | 'insert'
    | 'update'
    | 'delete'
    | 'with'
    | '$with'
    | '$count'
  >
>

/**
 * A Drizzle transaction of any PostgreSQL driver, for functions that write their own tables and publish:
 * `db.transaction` on postgres.js and node-postgres, a savepoint of either, and `ctx.tx` of an exactly-once handler. A
 * plain handle is not a transaction.
 *
 * @example
 * ```ts
 * async function savePayment(tx: BusTransaction, payment: Payment): Promise<void> {
 *   await tx.insert(payments).values(payment)
 *   const payload = { paymentId: payment.id, amountCents: payment.amountCents }
 *   await bus.publish(tx, { type: 'payment.paid', tenantId: payment.tenantId, payload })
 * }
 * ```
 */
export interface BusTransaction extends Querying, DrizzleTransaction {
  transaction<T>(work: (savepoint: BusTransaction) => Promise<T>): Promise<T>
}
