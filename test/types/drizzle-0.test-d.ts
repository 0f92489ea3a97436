// oxlint-disable vitest/expect-expect -- a line that must not compile is an assertion too
// What is said of Drizzle 0.44 and 0.45 alone: drizzle-1.test-d.ts says the same of 1.x.
import { relations } from 'drizzle-orm'
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres'
import { integer, pgTable, text, type PgDatabase, type PgQueryResultHKT } from 'drizzle-orm/pg-core'
import { drizzle as drizzlePostgresJs, type PostgresJsTransaction } from 'drizzle-orm/postgres-js'
import { expectTypeOf, test } from 'vitest'
import {
  createBus,
  defineSubscription,
  type BusTransaction,
  type DrizzleSettings,
  type ExactlyOnceContext,
  type HandlerTransaction,
} from '../../src/index.ts'
import { bus, events } from './support.ts'

const orders = pgTable('orders', { orderId: text().primaryKey(), amountCents: integer().notNull() })
const lines = pgTable('lines', { orderId: text().notNull() })
const schema = {
  orders,
  lines,
  orderRelations: relations(orders, ({ many }) => ({ lines: many(lines) })),
}
const note = { type: 'note', tenantId: 'acme', payload: null } as const

test('a transaction may have a schema, on either driver', () => {
  const use = async (): Promise<void> => {
    await drizzlePostgresJs('url', { schema }).transaction(async (tx) =>
      tx.transaction(async (savepoint) => bus.publish(savepoint, note)),
    )
    await drizzleNodePostgres('url', { schema }).transaction(async (tx) => bus.publishMany(tx, [note]))
  }
  expectTypeOf(use).toBeFunction()
})

test('ctx.tx fits where a handle of any driver is taken', () => {
  type Takes = (tx: PgDatabase<PgQueryResultHKT>) => void
  expectTypeOf<Takes>().toBeCallableWith(null as unknown as HandlerTransaction)
  expectTypeOf<Takes>().toBeCallableWith(
    null as unknown as PostgresJsTransaction<Record<string, never>, Record<string, never>>,
  )
})

test('a BusTransaction may have a schema, on either driver', () => {
  const save = async (tx: BusTransaction): Promise<void> => {
    await tx.insert(orders).values({ orderId: '1', amountCents: 5 })
    await bus.publish(tx, note)
  }
  const use = async (): Promise<void> => {
    await drizzlePostgresJs('url', { schema }).transaction(save)
    await drizzleNodePostgres('url', { schema }).transaction(async (tx) => tx.transaction(save))
  }
  expectTypeOf(use).toBeFunction()
  expectTypeOf<HandlerTransaction<{ schema: typeof schema }>>().toExtend<BusTransaction>()
})

test('ctx.tx has the schema that createBus was given', () => {
  const options = { database: 'postgres://localhost', events, source: 'a' }
  const made = createBus({ ...options, drizzle: { casing: 'snake_case', schema } })
  made.subscribe({
    name: 'once',
    events: ['note'],
    mode: 'exactly-once',
    handler: async (_event, { tx }) => {
      const found = await tx.query.orders.findFirst({ with: { lines: true } })
      expectTypeOf(found?.lines[0]?.orderId).toEqualTypeOf<string | undefined>()
      // @ts-expect-error -- no such table
      void tx.query.payments
    },
  })
  const same = createBus({
    ...options,
    drizzle: (client) => drizzleNodePostgres({ client, schema, casing: 'snake_case' }),
  })
  expectTypeOf(same).toEqualTypeOf(made)
  expectTypeOf<keyof DrizzleSettings>().toEqualTypeOf<'cache' | 'casing' | 'logger' | 'schema'>()
  // @ts-expect-error -- a misspelt setting
  createBus({ ...options, drizzle: { casin: 'snake_case', schema } })
  // @ts-expect-error -- no such casing
  createBus({ ...options, drizzle: { casing: 'kebab-case' } })
  // @ts-expect-error -- the connection is the bus's
  createBus({ ...options, drizzle: { connection: 'postgres://localhost' } })
})

test('a subscription that is declared apart fits a bus that was given tables, and not one without those it reads', () => {
  const drizzle = { schema: { orders } } as const
  const withTables = createBus({ database: 'postgres://localhost', events, source: 'shop', drizzle })
  const writer = defineSubscription(events, {
    name: 'writer',
    events: ['note'],
    mode: 'exactly-once',
    handler: async (_event, { tx }) => tx.insert(orders).values({ orderId: '42', amountCents: 4200 }),
  })
  withTables.subscribe(writer)
  bus.subscribe(writer)
  const reader = defineSubscription(events, {
    name: 'reader',
    events: ['note'],
    mode: 'exactly-once',
    handler: async (_event, { tx }: ExactlyOnceContext<typeof events, HandlerTransaction<typeof drizzle>>) =>
      tx.query.orders.findFirst(),
  })
  withTables.subscribe(reader)
  // @ts-expect-error -- the ctx.tx of that bus has no tables
  bus.subscribe(reader)
})
