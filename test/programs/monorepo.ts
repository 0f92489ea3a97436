// A monorepo: each package has its catalogue and its subscriptions, the application runs them all on one bus.
import { z } from 'zod'
import { createBus, defineEvents, defineSubscription, mergeEvents } from '../../src/index.ts'
import type { Environment } from './environment.ts'

// packages/payments
const paymentEvents = defineEvents({
  'payment.paid': { schema: z.object({ paymentId: z.string(), orderId: z.string() }) },
})

// packages/orders, which knows payments and nothing else
const orderEvents = defineEvents({
  'order.shipped': { schema: z.object({ orderId: z.string() }) },
})
const shippingEvents = mergeEvents(paymentEvents, orderEvents)
const shipOrder = defineSubscription(shippingEvents, {
  name: 'ship-order',
  events: ['payment.paid'],
  handler: async ({ payload }, { publish }) => {
    await publish({ type: 'order.shipped', payload: { orderId: payload.orderId } })
  },
})

// packages/mails
const mailEvents = defineEvents({
  'mail.sent': { schema: z.object({ to: z.email() }) },
})

// apps/shop
const events = mergeEvents(shippingEvents, mailEvents)

export async function run({ url, db }: Environment): Promise<string> {
  const shipped = Promise.withResolvers<string>()
  const bus = createBus({ database: url, events, source: 'shop' })
  bus.subscribe(shipOrder)
  bus.subscribe({
    name: 'tell-customer',
    events: ['order.*'],
    handler: ({ payload }) => shipped.resolve(payload.orderId),
  })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publish(tx, {
      type: 'payment.paid',
      tenantId: 'acme',
      payload: { paymentId: '42', orderId: 'order-7' },
    }),
  )
  const orderId = await shipped.promise
  await bus.stop()
  return orderId
}
