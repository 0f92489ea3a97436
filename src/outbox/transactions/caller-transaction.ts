import { TransactionError } from '../../foundation/errors.ts'
import { kindOf } from '../../foundation/options.ts'
import type { CallerConnection } from './caller-connection.ts'
import { toBusError } from '../../database/database-errors.ts'
import { connectionOf, type DrizzleTransaction } from './drizzle-connection.ts'
import type { Statement } from './statement.ts'
import { adapted, isAdapted, type AdaptedTransaction } from './adapted-transaction.ts'

export type { DrizzleTransaction } from './drizzle-connection.ts'

/**
 * The caller's transaction, in which publish and cancel write: Drizzle's as it is, another library's through `fromPg`,
 * `fromPostgresJs`, `fromKysely`, `fromKnex`, `fromPrisma` or `fromTypeOrm`.
 */
export type CallerTransaction = DrizzleTransaction | AdaptedTransaction

/** Which transaction each handle was seen in. */
const proofs = new WeakMap<object, string>()

/** Makes the statement that calls a function of the migrations, given the proof to send with it. */
type Call = (proof: string | null) => Statement

/** How to resolveTransaction a transaction, and the object that its proof is remembered for. */
function resolveTransaction(tx: CallerTransaction): {
  readonly connection: CallerConnection
  readonly identity: object
} {
  return isAdapted(tx) ? tx[adapted] : { connection: connectionOf(tx), identity: tx }
}

/**
 * Calls a function that writes only in the transaction that the handle stands for, and gives what it answers.
 *
 * One round trip where the transaction was named through this handle, has an id already because it has written something,
 * or is given one by a statement that the driver sends along. Else two: the server cannot tell the first statement of a
 * transaction from one outside any, so it writes nothing and names the transaction, and the second call shows that it is
 * still open.
 *
 * @param ask - sent first where the transaction was not named yet, in place of a large call that may be in vain
 * @throws a {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: the handle is no transaction, or its connection was
 *   lost and replaced underneath. Nothing was written.
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

/** Whether what is committed on this connection may be lost: see {@link CallerConnection.mayLoseCommits}. */
export function mayLoseCommits(tx: CallerTransaction): boolean {
  return resolveTransaction(tx).connection.mayLoseCommits?.() ?? false
}

/** Such functions answer with the name of the transaction and, where they went through, after a blank, their result. */
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

/** @throws a {@link TransactionError} when it cannot be a transaction at all */
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
    return 'got a node-postgres pool: take a client of it, begin, and give fromPg(client)'
  if ('query' in tx) return 'got a node-postgres client: give fromPg(client)'
  if ('unsafe' in tx) return 'got a postgres.js client: give fromPostgresJs(sql), with the `sql` of sql.begin'
  return `got ${kindOf(tx)}; one of another library is given by fromPg(client) and its like`
}
