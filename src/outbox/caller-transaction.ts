import type { SQL, sql } from 'drizzle-orm/sql'
import { TransactionError } from '../events/errors.ts'
import { toBusError } from './database-errors.ts'

/** A Drizzle transaction of any PostgreSQL driver: what `db.transaction` hands to its callback. */
export interface DrizzleTransaction {
  execute: (query: SQL) => PromiseLike<unknown>
}

let drizzle: Promise<{ readonly sql: typeof sql }> | undefined

/**
 * Drizzle's `sql`, loaded with the first call: whoever hands in a Drizzle transaction has loaded it, and a process that
 * only delivers does without its 30 MB. Kept, because importing again costs a tenth of a millisecond each time.
 */
async function loadSql(): Promise<typeof sql> {
  drizzle ??= import('drizzle-orm/sql')
  return (await drizzle).sql
}

/** Which transaction each handle was seen in. */
const proofs = new WeakMap<DrizzleTransaction, string>()

/** Makes the statement that calls a function of the migrations, given the proof to send with it. */
type Call = (tag: typeof sql, proof: string | null) => SQL

/**
 * Calls a function that writes only in the transaction that the handle stands for, and gives what it answers.
 *
 * One round trip where the transaction has written something before, or was named through this handle. Else two:
 * the server cannot tell the first statement of a transaction from one outside any, so it writes nothing and names
 * the transaction, and the second call shows that it is still open.
 *
 * @param ask - sent first where the transaction was not named yet, in place of a large call that may be in vain
 * @throws {@link TransactionError} `BUS_NOT_IN_TRANSACTION`: the handle is no transaction, or its connection was
 *   lost and replaced underneath. Nothing was written.
 */
export async function callInTransaction(tx: DrizzleTransaction, call: Call, ask?: Call): Promise<string> {
  const tag = await loadSql()
  let proof = proofs.get(tx) ?? null
  if (proof === null && ask !== undefined) proof = (await send(tx, ask(tag, null))).name
  let { name, answer } = await send(tx, call(tag, proof))
  if (answer === undefined) ({ name, answer } = await send(tx, call(tag, name)))
  proofs.set(tx, name)
  return answer ?? ''
}

/** Such functions answer with the name of the transaction and, where they went through, after a blank, their result. */
async function send(
  tx: DrizzleTransaction,
  statement: SQL,
): Promise<{ readonly name: string; readonly answer: string | undefined }> {
  try {
    const result = await tx.execute(statement)
    const rows = (Array.isArray(result) ? result : (result as { rows: unknown[] }).rows) as {
      reply: string
    }[]
    const [name = '', answer] = (rows[0]?.reply ?? '').split(' ')
    return { name, answer }
  } catch (error) {
    throw toBusError(error)
  }
}

/** @throws {@link TransactionError} when it cannot be a transaction at all */
export function assertTransaction(tx: unknown, call: string): void {
  if (typeof (tx as Partial<DrizzleTransaction> | null)?.execute === 'function') return
  throw new TransactionError(
    `Expected the first argument to be a Drizzle transaction: ${call} inside db.transaction(…)`,
  )
}
