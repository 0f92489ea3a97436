import { eq, relations } from 'drizzle-orm'
import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import * as drizzle1 from 'drizzle-1'
import { drizzle as drizzleOf1 } from 'drizzle-1/node-postgres'
import * as pg1 from 'drizzle-1/pg-core'
import pg from 'pg'
import { describe, expect, expectTypeOf, onTestFinished, test } from 'vitest'
import {
  createBus,
  type Bus,
  type BusOptions,
  type DrizzleOption,
  type HandlerTransaction,
} from '../../../src/index.ts'
import { paymentEvents, recordingLogger } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

/** Its columns have names in the database only through `casing`. */
const orders = pgTable('orders', { orderId: text().primaryKey(), amountCents: integer().notNull() })
const orderLines = pgTable('order_lines', { orderId: text().notNull(), articleName: text().notNull() })
const schema = {
  orders,
  orderLines,
  ordersRelations: relations(orders, ({ many }) => ({ lines: many(orderLines) })),
  orderLinesRelations: relations(orderLines, ({ one }) => ({
    order: one(orders, { fields: [orderLines.orderId], references: [orders.orderId] }),
  })),
}

const orders1 = pg1.snakeCase.table('orders', {
  orderId: pg1.text().primaryKey(),
  amountCents: pg1.integer().notNull(),
})
const orderLines1 = pg1.snakeCase.table('order_lines', {
  orderId: pg1.text().notNull(),
  articleName: pg1.text().notNull(),
})
const relations1 = drizzle1.defineRelations({ orders1, orderLines1 }, (r) => ({
  orders1: { lines: r.many.orderLines1({ from: r.orders1.orderId, to: r.orderLines1.orderId }) },
}))

async function openDatabase(): Promise<TestDatabase> {
  const database = await createTestDatabase()
  await database.rows('create table orders (order_id text primary key, amount_cents integer not null)')
  await database.rows('create table order_lines (order_id text not null, article_name text not null)')
  return database
}

function busWith<const D extends DrizzleOption>(
  url: string,
  option: D,
): Bus<typeof paymentEvents, HandlerTransaction<D>> {
  const bus = createBus({
    database: url,
    events: paymentEvents,
    source: 'payment-service',
    logger: recordingLogger(),
    drizzle: option as BusOptions<typeof paymentEvents, D>['drizzle'],
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  return bus
}

const note = (payload: unknown) => ({ type: 'note', tenantId: 'acme', payload }) as const

describe('ctx.tx and the db of tenant.query', () => {
  test('have the casing and the tables of the settings', async () => {
    const { url, db, rows } = await openDatabase()
    const bus = busWith(url, { casing: 'snake_case', schema })
    const seen: unknown[] = []
    bus.subscribe({
      name: 'once',
      events: ['note'],
      mode: 'exactly-once',
      retry: { maxAttempts: 1 },
      handler: async ({ payload }, { tx, publish }) => {
        await tx.insert(orders).values({ orderId: String(payload), amountCents: 5 })
        await tx.transaction(async (nested) =>
          nested.insert(orderLines).values({ orderId: String(payload), articleName: 'pen' }),
        )
        const found = await tx.query.orders.findFirst({
          where: eq(orders.orderId, String(payload)),
          with: { lines: true },
        })
        expectTypeOf(found?.lines[0]?.articleName).toEqualTypeOf<string | undefined>()
        seen.push(found)
        if (payload === 'first') await publish(note('second'))
      },
    })
    await bus.start()
    await db.transaction(async (tx) => bus.publish(tx, note('first')))
    await until(
      'both were committed',
      async () => (await rows('select event_id from bus.deliveries')).length === 2,
    )
    expect(seen).toEqual(
      ['first', 'second'].map((orderId) => ({
        orderId,
        amountCents: 5,
        lines: [{ orderId, articleName: 'pen' }],
      })),
    )
    expect(await rows('select order_id from orders order by 1')).toHaveLength(2)
    await rows('grant select on orders, order_lines to bus_tenant')
    const read = await bus.tenant('acme').query(async (tenantDb) => tenantDb.query.orders.findMany())
    expect(read).toHaveLength(2)
    expect(read[0]).toEqual({ orderId: 'first', amountCents: 5 })
  })

  test('are what a function makes, of this copy of Drizzle or of another version', async () => {
    const database = await openDatabase()
    const statements: string[] = []
    const made: pg.Pool[] = []
    const bus = busWith(database.url, (client) => {
      made.push(client)
      const logger = { logQuery: (text: string) => void statements.push(text) }
      return drizzle({ client, schema, casing: 'snake_case', logger })
    })
    const other = busWith(database.url, (client) => drizzleOf1({ client, relations: relations1 }))
    const seen: unknown[] = []
    bus.subscribe({
      name: 'this-copy',
      events: ['note'],
      mode: 'exactly-once',
      handler: async ({ payload }, { tx }) => {
        expectTypeOf(tx.query.orders).toHaveProperty('findFirst')
        await tx.insert(orders).values({ orderId: String(payload), amountCents: 5 })
      },
    })
    other.subscribe({
      name: 'another-version',
      events: ['payment.refunded'],
      mode: 'exactly-once',
      retry: { maxAttempts: 1 },
      handler: async ({ payload }, { tx, publish }) => {
        const orderId = payload.paymentId
        await tx.insert(orderLines1).values({ orderId, articleName: 'ink' })
        await tx.transaction(async (nested) => {
          await nested.insert(orders1).values({ orderId, amountCents: 7 })
          await publish(nested, note('caused'))
        })
        await expect(
          tx.transaction(async (nested) => {
            await nested.insert(orders1).values({ orderId: 'gone', amountCents: 7 })
            nested.rollback()
          }),
        ).rejects.toThrow('Rollback')
        const found = await tx.query.orders1.findFirst({ where: { orderId }, with: { lines: true } })
        expectTypeOf(found?.lines[0]?.articleName).toEqualTypeOf<string | undefined>()
        seen.push(found)
      },
    })
    await Promise.all([bus.start(), other.start()])
    await database.db.transaction(async (tx) =>
      bus.publish(tx, { type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: 'o1' } }),
    )
    await until(
      'the caused one is there',
      async () => (await database.count('select count(*) from bus.deliveries')) === 2,
    )
    expect(seen).toEqual([{ orderId: 'o1', amountCents: 7, lines: [{ orderId: 'o1', articleName: 'ink' }] }])
    expect(await database.rows('select order_id from orders order by 1')).toEqual([
      { order_id: 'caused' },
      { order_id: 'o1' },
    ])
    expect(made).toHaveLength(1)
    expect(statements.some((text) => text.startsWith('insert into "orders"'))).toBe(true)
  })

  test('are without tables where nothing is said', async () => {
    const { url } = await openDatabase()
    const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
    onTestFinished(async () => bus.stop())
    expectTypeOf(bus).toEqualTypeOf<Bus<typeof paymentEvents>>()
    const rows = await bus.tenant('acme').query(async (db) => db.execute('select 1 as one'))
    expect(rows.rows).toEqual([{ one: 1 }])
  })

  test('of events that run at once keep to their own transactions', async () => {
    const { url, db, count } = await openDatabase()
    const bus = busWith(url, { casing: 'snake_case', schema })
    const late: HandlerTransaction[] = []
    bus.subscribe({
      name: 'once',
      events: ['note'],
      mode: 'exactly-once',
      batchSize: 2,
      retry: { maxAttempts: 1 },
      handler: async ({ payload }, { tx }) => {
        const orderId = String(payload)
        await tx.insert(orders).values({ orderId, amountCents: 1 })
        await tx.execute('select pg_sleep(0.01)')
        await tx.insert(orderLines).values({ orderId, articleName: orderId })
        if (Number(payload) % 3 === 0) throw new Error('every third fails')
        late.push(tx as unknown as HandlerTransaction)
      },
    })
    await bus.start()
    const payloads = Array.from({ length: 30 }, (_, n) => n)
    await db.transaction(async (tx) => bus.publishMany(tx, payloads.map(note)))
    await until('all were tried', async () => (await bus.deadLetters.list()).length === 10)
    await until('the rest is there', async () => (await count('select count(*) from bus.deliveries')) === 20)
    expect(await count('select count(*) from orders where order_id::int % 3 <> 0')).toBe(20)
    expect(await count('select count(*) from orders')).toBe(20)
    expect(await count('select count(*) from orders join order_lines using (order_id)')).toBe(20)
    for (const tx of late)
      await expect((async () => tx.execute('select 1'))()).rejects.toMatchObject({
        cause: { code: 'BUS_HANDLER_TRANSACTION_ENDED' },
      })
  })
})

describe('what is wrong with `drizzle` is said', () => {
  test.each([
    ['a text', 'snake_case'],
    ['null', null],
    ['a handle', drizzle.mock()],
    ['settings with a connection', { connection: 'postgres://localhost' }],
    ['settings with a client', { client: {} }],
  ])('when the bus is made: %s', (_what, option) => {
    expect(() => busWith('postgres://nobody@127.0.0.1:1/nowhere', option as never)).toThrow(
      expect.objectContaining({ code: 'BUS_INVALID_OPTION' }) as Error,
    )
  })

  test.each<[string, (url: string) => unknown]>([
    ['gives nothing', () => () => undefined],
    ['gives what has no transactions', () => () => ({ execute: async () => [] })],
    [
      'makes a handle of a pool of its own',
      (url) => {
        const own = new pg.Pool({ connectionString: url, max: 1 })
        onTestFinished(async () => own.end())
        return (): NodePgDatabase => drizzle({ client: own })
      },
    ],
    [
      'throws',
      () => () => {
        throw new TypeError('mine')
      },
    ],
  ])('at the start: a function that %s', async (what, makeOption) => {
    const { url, db, count } = await createTestDatabase()
    const bus = busWith(url, makeOption(url) as DrizzleOption)
    bus.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', handler: () => {} })
    await expect(bus.start()).rejects.toMatchObject(
      what === 'throws' ? { message: 'mine' } : { code: 'BUS_INVALID_OPTION' },
    )
    // A bus that needs no handle starts.
    const plain = busWith(url, makeOption(url) as DrizzleOption)
    plain.subscribe({ name: 'plain', events: ['note'], handler: () => {} })
    await plain.start()
    await db.transaction(async (tx) => plain.publish(tx, note(1)))
    await until('it delivers', async () => (await count('select count(*) from bus.deliveries')) === 1)
  })
})
