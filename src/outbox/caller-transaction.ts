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
export async function loadSql(): Promise<typeof sql> {
  drizzle ??= import('drizzle-orm/sql')
  return (await drizzle).sql
}

/** Which transaction each handle was seen in. */
export const proofs = new WeakMap<DrizzleTransaction, string>()

/** Calls a function that answers with the name of the transaction it ran in and, where it went through, its result. */
export async function callInTransaction(
  tx: DrizzleTransaction,
  query: SQL,
): Promise<{ readonly named: string; readonly reply: string | undefined }> {
  try {
    const result = await tx.execute(query)
    const rows = (Array.isArray(result) ? result : (result as { rows: unknown[] }).rows) as {
      reply: string
    }[]
    const [named = '', reply] = (rows[0]?.reply ?? '').split(' ')
    return { named, reply }
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
