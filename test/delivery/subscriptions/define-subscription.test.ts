import { expect, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents, defineSubscription, mergeEvents } from '../../../src/index.ts'
import { paymentEvents, testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

const orderEvents = defineEvents({ 'order.placed': { schema: z.object({ orderId: z.string() }) } })
const database = 'postgres://nobody@127.0.0.1:1/none'

test('a subscription declared apart runs on a bus of its events, and on one of more', async () => {
  const seen: string[] = []
  const subscription = defineSubscription(orderEvents, {
    name: 'orders',
    events: ['order.*'],
    handler: ({ payload }) => void seen.push(payload.orderId),
  })
  const { url, db } = await createTestDatabase()
  const bus = createBus({ database: url, events: mergeEvents(paymentEvents, orderEvents), source: 'shop' })
  bus.subscribe(subscription)
  await bus.start()
  try {
    await db.transaction(async (tx) =>
      bus.publish(tx, { type: 'order.placed', tenantId: 'acme', payload: { orderId: '42' } }),
    )
    await until('it is delivered', () => seen.length === 1)
    expect(seen).toEqual(['42'])
  } finally {
    await bus.stop()
  }
})

test('what it is declared with is checked at once, and what is changed later has no effect', () => {
  const options = { name: 'orders', events: ['order.placed'] as 'order.placed'[], handler: () => {} }
  const subscription = defineSubscription(orderEvents, options)
  options.name = 'other name'
  expect(subscription.name).toBe('orders')
  expect(Object.isFrozen(subscription)).toBe(true)
  const wrong = (more: object) => () => defineSubscription(orderEvents, { ...options, name: 'a', ...more })
  expect(wrong({ events: ['order.palced'] })).toThrow(/`a` names "order.palced"/)
  expect(wrong({ concurrency: 0 })).toThrow(/`concurrency`/)
  expect(wrong({ concurency: 1 })).toThrow(/Did you mean `concurrency`/)
  expect(wrong({ handler: undefined })).toThrow(/`handler`/)
  expect(() => defineSubscription(null as never, options as never)).toThrow(/catalogue made by defineEvents/)
})

test('one whose pattern matches other events of the bus than its own is refused', () => {
  const handler = (): void => {}
  const everything = defineSubscription(orderEvents, { name: 'all-orders', events: ['**'], handler })
  const bus = createBus({ database, events: mergeEvents(paymentEvents, orderEvents), source: 'shop' })
  expect(() => bus.subscribe(everything)).toThrow(
    expect.objectContaining({
      code: 'BUS_INVALID_PATTERN',
      message: expect.stringMatching(/`all-orders` would receive "payment.paid"/) as string,
    }) as Error,
  )
  const orders = createBus({ database, events: orderEvents, source: 'shop' })
  expect(() => orders.subscribe(everything)).not.toThrow()
})

test('one of events that the bus lacks is refused', () => {
  const orders = defineSubscription(orderEvents, {
    name: 'orders',
    events: ['order.placed'],
    handler: () => {},
  })
  expect(() => testBus(database).subscribe(orders as never)).toThrow(
    expect.objectContaining({ code: 'BUS_INVALID_PATTERN' }) as Error,
  )
})

test('catalogues that share a type do not merge', () => {
  expect(Object.keys(mergeEvents(orderEvents, paymentEvents))).toEqual([
    'order.placed',
    ...Object.keys(paymentEvents),
  ])
  expect(mergeEvents()).toEqual({})
  expect(() => mergeEvents(...([orderEvents, paymentEvents, orderEvents] as never[]))).toThrow(
    /"order.placed" in argument 3 of mergeEvents/,
  )
  expect(() => mergeEvents(...([null] as never[]))).toThrow(/got null/)
})
