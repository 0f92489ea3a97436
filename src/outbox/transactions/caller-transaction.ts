import { TransactionError } from '../../foundation/errors.ts'
import { kindOf } from '../../foundation/options.ts'
import { toBusError } from '../../database/database-errors.ts'
import {
  connectionOf,
  type CallerConnection,
  type DrizzleTransaction,
  type Statement,
} from './caller-connection.ts'

/**
 * The caller's transaction, in which publish and cancel write: a Drizzle transaction itself, or that of another library
 * through `fromPg`, `fromPostgresJs`, `fromKysely`, `fromKnex`, `fromPrisma` or `fromTypeOrm`.
 */
export type CallerTransaction = DrizzleTransaction | AdaptedTransaction

/**
 * The property of an adapted transaction that holds what the bus needs. A registered symbol, so that another copy of
 * this package finds it.
 */
const adapted: unique symbol = Symbol.for('bossbus.transaction')

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

function isAdapted(value: unknown): value is AdaptedTransaction {
  return typeof value === 'object' && value !== null && adapted in value
}

/** The error of an adapter whose argument is not an open transaction. */
export function notATransaction(adapter: string, expected: string, got: string): TransactionError {
  return new TransactionError(`Expected \`${adapter}\` to get ${expected}, got ${got}. Nothing was written`)
}

/** The name of the transaction that each handle was last seen in. */
const proofs = new WeakMap<object, string>()

/** Builds the statement that calls a function of the schema `bus`, with the proof as an argument. */
type Call = (proof: string | null) => Statement

/** Returns the connection of a transaction, and the object that its proof is cached for. */
function resolveTransaction(tx: CallerTransaction): {
  readonly connection: CallerConnection
  readonly identity: object
} {
  return isAdapted(tx) ? tx[adapted] : { connection: connectionOf(tx), identity: tx }
}

/**
 * Calls a function that writes only inside the transaction of the handle, and returns its answer.
 *
 * It takes one round trip if this handle has named the transaction before, if the transaction has an id because it has
 * already written something, or if the driver pipelines a statement that assigns one. Otherwise it takes two: the
 * server cannot tell the first statement of a transaction from one outside a transaction, so the first call writes
 * nothing and returns the transaction's name, and the second call proves that the transaction is still open.
 *
 * @param ask - sent first if the transaction is not named yet, to avoid sending a large call in vain
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: the handle is not a transaction, or its connection was
 *   lost and silently replaced. Nothing was written.
 */
export async function callInTransaction(tx: CallerTransaction, call: Call, ask?: Call): Promise<string> {
  const { connection, identity } = resolveTransaction(tx)
  let proof = proofs.get(identity) ?? null
  let first = connection.send
  if (proof === null && connection.sendWithTransactionId !== undefined)
    first = connection.sendWithTransactionId
  else if (proof === null && ask !== undefined) proof = (await send(connection.send, ask(null))).name
  let { name, answer } = await send(first, call(proof))
  if (answer === undefined) ({ name, answer } = await send(connection.send, call(name)))
  proofs.set(identity, name)
  return answer ?? ''
}

/** Whether commits on this connection may be lost: see {@link CallerConnection.mayLoseCommits}. */
export function mayLoseCommits(tx: CallerTransaction): boolean {
  return resolveTransaction(tx).connection.mayLoseCommits?.() ?? false
}

/** These functions return the name of the transaction and, if they succeeded, a space and their result. */
async function send(
  through: CallerConnection['send'],
  statement: Statement,
): Promise<{ readonly name: string; readonly answer: string | undefined }> {
  try {
    const [name = '', answer] = (await through(statement)).split(' ')
    return { name, answer }
  } catch (error) {
    throw toBusError(error)
  }
}

/** @throws a {@link TransactionError} if the value cannot be a transaction */
export function assertTransaction(tx: unknown, call: string): void {
  if (isAdapted(tx)) return
  const { execute, rollback } = (tx ?? {}) as Partial<DrizzleTransaction>
  if (typeof execute === 'function' && typeof rollback === 'function') return
  throw new TransactionError(
    `Expected a transaction before the event, ${insteadOfTransaction(tx)}. Nothing was written: call ${call} inside db.transaction(async (tx) => …), with its \`tx\``,
  )
}

function insteadOfTransaction(tx: unknown): string {
  if (tx === null || (typeof tx !== 'object' && typeof tx !== 'function')) return `got ${kindOf(tx)}`
  if ('type' in tx && 'payload' in tx)
    return 'got the event: publish takes two arguments, and bus.tryPublish(event) one'
  if ('execute' in tx) return 'got a database handle, outside any transaction'
  if ('totalCount' in tx && 'query' in tx)
    return 'got a node-postgres pool: take a client from it, begin, and pass fromPg(client)'
  if ('query' in tx) return 'got a node-postgres client: pass fromPg(client)'
  if ('unsafe' in tx) return 'got a postgres.js client: pass fromPostgresJs(sql), with the `sql` of sql.begin'
  return `got ${kindOf(tx)}; adapt a transaction of another library with fromPg(client) and the like`
}
