// oxlint-disable vitest/expect-expect -- a line that must not compile is an assertion too
import type { NodePgDatabase } from 'drizzle-orm/node-postgres'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import { eq } from 'drizzle-orm'
import { expectTypeOf, test } from 'vitest'
import type { BusTransaction, DrizzleTransaction, HandlerTransaction } from '../../src/index.ts'
import { bus } from './support.ts'

const payments = pgTable('payments', { id: text().primaryKey(), cents: integer().notNull() })

/** As a repository of a service would be. */
async function save(tx: BusTransaction, id: string): Promise<number | undefined> {
  await tx.insert(payments).values({ id, cents: 5 }).onConflictDoNothing()
  await tx.update(payments).set({ cents: 6 }).where(eq(payments.id, id))
  await tx.transaction(async (savepoint) => save(savepoint, id))
  await bus.publish(tx, { type: 'note', tenantId: 'acme', payload: id })
  const rows = await tx.select({ cents: payments.cents }).from(payments).where(eq(payments.id, id))
  expectTypeOf(rows).toEqualTypeOf<{ cents: number }[]>()
  // @ts-expect-error -- a column that there is not
  await tx.insert(payments).values({ id, amount: 5 })
  return rows[0]?.cents
}

test('a repository takes the transactions of all drivers, savepoints and ctx.tx', () => {
  const use = async (postgresJs: PostgresJsDatabase, nodePg: NodePgDatabase): Promise<void> => {
    await postgresJs.transaction(async (tx) => save(tx, 'a'))
    await postgresJs.transaction(async (tx) => tx.transaction(async (savepoint) => save(savepoint, 'a')))
    await nodePg.transaction(async (tx) => save(tx, 'a'))
    await nodePg.transaction(async (tx) => tx.transaction(async (savepoint) => save(savepoint, 'a')))
  }
  expectTypeOf(use).toBeFunction()
  expectTypeOf<HandlerTransaction>().toExtend<BusTransaction>()
  expectTypeOf<BusTransaction>().toExtend<DrizzleTransaction>()
})

test('a plain handle is no transaction', () => {
  const use = async (postgresJs: PostgresJsDatabase, nodePg: NodePgDatabase): Promise<void> => {
    const note = { type: 'note', tenantId: 'acme', payload: 1 } as const
    // @ts-expect-error -- what it writes cannot be rolled back
    await bus.publish(postgresJs, note)
    // @ts-expect-error -- the same
    await bus.publish(nodePg, note)
    // @ts-expect-error -- the same
    await bus.publishMany(postgresJs, [note])
    // @ts-expect-error -- the same
    await bus.cancel(nodePg, 'id')
    // @ts-expect-error -- the same
    await save(postgresJs, 'a')
    // @ts-expect-error -- the same
    await save(nodePg, 'a')
  }
  expectTypeOf(use).toBeFunction()
})
