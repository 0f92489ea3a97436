// A process that goes on when two events have come, in whatever order: what has come is a row, written exactly once.
import { sql } from 'drizzle-orm'
import { boolean, pgTable, text } from 'drizzle-orm/pg-core'
import { z } from 'zod'
import { createBus, defineEvents, defineSubscription } from '../../src/index.ts'
import type { Environment } from './environment.ts'

const orderId = z.string()
const events = defineEvents({
  'order.paid': { schema: z.object({ orderId }) },
  'order.packed': { schema: z.object({ orderId }) },
  'order.ready': { schema: z.object({ orderId }) },
})

const orders = pgTable('orders', {
  id: text().primaryKey(),
  paid: boolean().notNull().default(false),
  packed: boolean().notNull().default(false),
})

const waitForBoth = defineSubscription(events, {
  name: 'order-ready',
  events: ['order.paid', 'order.packed'],
  mode: 'exactly-once',
  handler: async ({ type, payload: { orderId } }, { tx, publish }) => {
    const come = type === 'order.paid' ? { paid: true } : { packed: true }
    // The row is locked until the commit: of two handlers at once the second sees what the first has written.
    const [order] = await tx
      .insert(orders)
      .values({ id: orderId, ...come })
      .onConflictDoUpdate({ target: orders.id, set: come })
      .returning()
    if (order?.paid === true && order.packed) await publish({ type: 'order.ready', payload: { orderId } })
  },
})

export async function run({ url, db }: Environment): Promise<string[]> {
  await db.execute(
    sql`create table orders (id text primary key, paid boolean not null default false, packed boolean not null default false)`,
  )
  const ready: string[] = []
  const all = Promise.withResolvers<void>()
  const bus = createBus({ database: url, events, source: 'shop', defaults: { tenantId: 'acme' } })
  bus.subscribe(waitForBoth)
  bus.subscribe({
    name: 'ship',
    events: ['order.ready'],
    handler: ({ payload }) => {
      if (ready.push(payload.orderId) === 2) all.resolve()
    },
  })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publishMany(tx, [
      { type: 'order.paid', payload: { orderId: '1' } },
      { type: 'order.packed', payload: { orderId: '2' } },
      { type: 'order.paid', payload: { orderId: '3' } },
    ]),
  )
  await bus.tryPublish({ type: 'order.packed', payload: { orderId: '1' } })
  await bus.tryPublish({ type: 'order.paid', payload: { orderId: '2' } })
  await all.promise
  await bus.stop()
  return ready.toSorted()
}
