import { TransactionError } from '../../foundation/errors.ts'
import type { CallerConnection } from './caller-connection.ts'

/** Under which an adapted transaction keeps what the bus needs of it. Registered, so that another copy of this package finds it. */
export const adapted: unique symbol = Symbol.for('bossbus.transaction')

/** A transaction of another library than Drizzle, as `fromPg` and its like give it: for `bus.publish` and `bus.cancel`. */
export interface AdaptedTransaction {
  readonly [adapted]: {
    readonly connection: CallerConnection
    /** What the name of the transaction is remembered for: it never stands for another transaction. */
    readonly identity: object
  }
}

/**
 * @param handle - the library's own handle, where it makes one for each transaction. Without it the value itself is what the
 *   name is remembered for: a client serves one transaction after the other, and must not carry a name from one to the next.
 */
export function adapt(connection: CallerConnection, handle?: object): AdaptedTransaction {
  const transaction: { -readonly [K in keyof AdaptedTransaction]?: AdaptedTransaction[K] } = {}
  transaction[adapted] = { connection, identity: handle ?? transaction }
  return Object.freeze(transaction) as AdaptedTransaction
}

export function isAdapted(value: unknown): value is AdaptedTransaction {
  return typeof value === 'object' && value !== null && adapted in value
}

/** The error of an adapter that was given something else than an open transaction. */
export function notATransaction(adapter: string, expected: string, got: string): TransactionError {
  return new TransactionError(`Expected \`${adapter}\` to get ${expected}, got ${got}. Nothing was written`)
}
