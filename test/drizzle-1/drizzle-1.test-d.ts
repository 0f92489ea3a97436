// oxlint-disable vitest/expect-expect -- a line that must not compile is an assertion too
// Compiled by the tsconfig.json beside it alone, in which `drizzle-orm` is 1.x.
import { defineRelations, eq } from 'drizzle-orm'
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres'
import { integer, snakeCase, text, type PgTable } from 'drizzle-orm/pg-core'
import { drizzle as drizzlePostgresJs } from 'drizzle-orm/postgres-js'
import { expectTypeOf, test } from 'vitest'
import {
  createBus,
  type BusTransaction,
  type DrizzleSettings,
  type HandlerTransaction,
} from '../../src/index.ts'
import { events as log, subscriptions } from '../../src/schema.ts'
import { bus, events } from '../types/support.ts'

const orders = snakeCase.table('orders', { orderId: text().primaryKey(), amountCents: integer().notNull() })
const lines = snakeCase.table('lines', { orderId: text().notNull() })
const relations = defineRelations({ orders, lines }, (r) => ({
  orders: { lines: r.many.lines({ from: r.orders.orderId, to: r.lines.orderId }) },
}))
const note = { type: 'note', tenantId: 'acme', payload: null } as const

test('a transaction is one of Drizzle 1.x, on either driver, with relations or without', () => {
  const use = async (): Promise<void> => {
    const handles = [drizzlePostgresJs('url'), drizzlePostgresJs('url', { relations })] as const
    await handles[0].transaction(async (tx) => bus.publish(tx, note))
    await handles[1].transaction(async (tx) =>
      tx.transaction(async (savepoint) => bus.publishMany(savepoint, [note])),
    )
    await drizzleNodePostgres('url').transaction(async (tx) => bus.publish(tx, note))
    await drizzleNodePostgres('url', { relations }).transaction(async (tx) => bus.cancel(tx, 'id'))
  }
  expectTypeOf(use).toBeFunction()
})

test('a BusTransaction is one of Drizzle 1.x, on either driver, with relations or without', () => {
  const save = async (tx: BusTransaction): Promise<void> => {
    await tx.insert(orders).values({ orderId: '1', amountCents: 5 })
    await bus.publish(tx, note)
  }
  const use = async (): Promise<void> => {
    await drizzlePostgresJs('url').transaction(save)
    await drizzlePostgresJs('url', { relations }).transaction(save)
    await drizzleNodePostgres('url', { relations }).transaction(async (tx) => tx.transaction(save))
  }
  expectTypeOf(use).toBeFunction()
  expectTypeOf<HandlerTransaction<{ relations: typeof relations }>>().toExtend<BusTransaction>()
})

test('the tables of bossbus/schema are tables of Drizzle 1.x', () => {
  expectTypeOf(log).toExtend<PgTable>()
  const db = drizzlePostgresJs('url')
  const read = async () => db.select().from(log).where(eq(log.tenantId, 'acme'))
  expectTypeOf<Awaited<ReturnType<typeof read>>[number]['createdAt']>().toEqualTypeOf<Date>()
  const join = async () =>
    db
      .select({ name: subscriptions.name, subject: log.subject })
      .from(log)
      .innerJoin(subscriptions, eq(log.source, subscriptions.service))
  expectTypeOf<Awaited<ReturnType<typeof join>>[number]>().toEqualTypeOf<{
    name: string
    subject: string | null
  }>()
})

test('ctx.tx has the relations that createBus was given', () => {
  const options = { database: 'postgres://localhost', events, source: 'a' }
  const made = createBus({ ...options, drizzle: { relations } })
  made.subscribe({
    name: 'once',
    events: ['note'],
    mode: 'exactly-once',
    handler: async (_event, { tx }) => {
      const found = await tx.query.orders.findFirst({ where: { orderId: 'o1' }, with: { lines: true } })
      expectTypeOf(found?.lines[0]?.orderId).toEqualTypeOf<string | undefined>()
      // @ts-expect-error -- no such table
      void tx.query.payments
    },
  })
  const same = createBus({ ...options, drizzle: (client) => drizzleNodePostgres({ client, relations }) })
  expectTypeOf(same).toEqualTypeOf(made)
  expectTypeOf<keyof DrizzleSettings>().toEqualTypeOf<
    'cache' | 'codecs' | 'jit' | 'logger' | 'paramsInErrors' | 'relations'
  >()
  // @ts-expect-error -- 1.x has the casing with the tables
  createBus({ ...options, drizzle: { casing: 'snake_case', relations } })
  // @ts-expect-error -- a misspelt setting
  createBus({ ...options, drizzle: { relation: relations } })
})
