import { TransactionError } from '../../foundation/errors.ts'
import type { CallerConnection } from './caller-connection.ts'

/**
 * The property of an adapted transaction that holds what the bus needs. A registered symbol, so that another copy of
 * this package finds it.
 */
export const adapted: unique symbol = Symbol.for('bossbus.transaction')

/**
 * A transaction of a library other than Drizzle, as returned by `fromPg` and the other adapters: for `bus.publish` and
 * `bus.cancel`.
 */
export interface AdaptedTransaction {
  readonly [adapted]: {
    readonly connection: CallerConnection
    /** The object that the transaction's name is cached for: it never stands for another transaction. */
    readonly identity: object
  }
}

/**
 * @param handle - the library's own handle, if it creates one for each transaction. Otherwise the name is cached for
 *   the adapted value: a client serves one transaction after another, and a name must not carry over
 */
export function adapt(connection: CallerConnection, handle?: object): AdaptedTransaction {
  const transaction: { -readonly [K in keyof AdaptedTransaction]?: AdaptedTransaction[K] } = {}
  transaction[adapted] = { connection, identity: handle ?? transaction }
  return Object.freeze(transaction) as AdaptedTransaction
}

export function isAdapted(value: unknown): value is AdaptedTransaction {
  return typeof value === 'object' && value !== null && adapted in value
}

/** The error of an adapter whose argument is not an open transaction. */
export function notATransaction(adapter: string, expected: string, got: string): TransactionError {
  return new TransactionError(`Expected \`${adapter}\` to get ${expected}, got ${got}. Nothing was written`)
}
