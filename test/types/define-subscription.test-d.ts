// oxlint-disable vitest/expect-expect -- a line that must not compile is an assertion too
import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import {
  createBus,
  defineEvents,
  defineSubscription,
  mergeEvents,
  type BusTransaction,
  type DefinedSubscription,
  type ExactlyOnceContext,
  type HandlerContext,
  type HandlerTransaction,
  type StoredEvent,
  type SubscriptionOptions,
} from '../../src/index.ts'
import { bus, events, type Events } from './support.ts'

const orderEvents = defineEvents({
  'order.shipped': { schema: z.object({ orderId: z.string() }) },
  'order.returned': { schema: z.object({ reason: z.string() }) },
})
const all = mergeEvents(orderEvents, events)
const whole = createBus({ database: 'postgres://localhost', events: all, source: 'shop' })

const noted = defineSubscription(events, {
  name: 'noted',
  events: ['payment.paid', '*.placed'],
  handler: (event, ctx) => {
    expectTypeOf(event.type).toEqualTypeOf<'payment.paid' | 'order.placed'>()
    if (event.type === 'payment.paid') expectTypeOf(event.payload.cents).toEqualTypeOf<number>()
    expectTypeOf(ctx).toEqualTypeOf<HandlerContext<Events>>()
    expectTypeOf(ctx).not.toHaveProperty('tx')
  },
})

const ledger = defineSubscription(events, {
  name: 'ledger',
  events: ['payment.paid'],
  mode: 'exactly-once',
  handler: async (event, { tx }) => {
    expectTypeOf(event).toEqualTypeOf<StoredEvent<'payment.paid', { cents: number; currency: string }>>()
    expectTypeOf(tx).toEqualTypeOf<HandlerTransaction>()
  },
})

describe('a subscription that is declared apart', () => {
  test('fits the bus of its events, and a bus of more', () => {
    bus.subscribe(noted)
    bus.subscribe(ledger)
    whole.subscribe(noted)
    whole.subscribe(ledger)
    for (const subscription of [noted, ledger]) whole.subscribe(subscription)
    const list: DefinedSubscription<typeof all, HandlerTransaction>[] = [noted, ledger]
    expectTypeOf(list).toBeArray()
  })

  test('does not fit a bus that lacks its events', () => {
    const shipped = defineSubscription(orderEvents, {
      name: 'shipped',
      events: ['order.*'],
      handler: ({ type }) => expectTypeOf(type).toEqualTypeOf<'order.shipped' | 'order.returned'>(),
    })
    whole.subscribe(shipped)
    // @ts-expect-error -- the bus has no such events
    bus.subscribe(shipped)
    const other = defineEvents({ 'order.shipped': { schema: z.object({ orderId: z.number() }) } })
    const otherBus = createBus({ database: 'postgres://localhost', events: other, source: 'shop' })
    const one = defineSubscription(orderEvents, { name: 'one', events: ['order.shipped'], handler: () => {} })
    // @ts-expect-error -- there, its payload is another
    otherBus.subscribe(one)
  })

  test('is called in tests as a bus calls it', () => {
    const call = async (
      event: StoredEvent<'payment.paid', { cents: number; currency: string }>,
      tx: HandlerTransaction,
    ) => {
      noted.handler(event, {} as HandlerContext<Events>)
      await ledger.handler(event, { tx } as ExactlyOnceContext<Events>)
      // @ts-expect-error -- it needs a transaction
      await ledger.handler(event, {} as HandlerContext<Events>)
      // @ts-expect-error -- an event that it does not get
      await ledger.handler({ ...event, type: 'note' }, { tx } as ExactlyOnceContext<Events>)
    }
    expectTypeOf(call).toBeFunction()
    expectTypeOf(noted.name).toBeString()
  })

  test('refuses what bus.subscribe refuses', () => {
    // @ts-expect-error -- misspelt
    defineSubscription(events, { name: 'a', events: ['payment.payed'], handler: () => {} })
    // @ts-expect-error -- no such option
    defineSubscription(events, { name: 'a', events: ['note'], handler: () => {}, concurency: 1 })
    // @ts-expect-error -- no such mode
    defineSubscription(events, { name: 'a', events: ['note'], mode: 'twice', handler: () => {} })
    // @ts-expect-error -- no handler
    defineSubscription(events, { name: 'a', events: ['note'] })
  })

  test('may say which transaction it takes', () => {
    const booked = defineSubscription(events, {
      name: 'booked',
      events: ['note'],
      mode: 'exactly-once',
      handler: async (_event, ctx: ExactlyOnceContext<Events, BusTransaction>) => void ctx.tx.insert,
    })
    bus.subscribe(booked)
    whole.subscribe(booked)
  })
})

test('exactly-once options need their mode', () => {
  const handler = (): void => {}
  type Once = SubscriptionOptions<Events, 'note', 'exactly-once'>
  expectTypeOf({
    name: 'a',
    events: ['note'] as const,
    mode: 'exactly-once' as const,
    handler,
  }).toExtend<Once>()
  expectTypeOf({ name: 'a', events: ['note'] as const, handler }).not.toExtend<Once>()
  expectTypeOf({ name: 'a', events: ['note'] as const, handler }).toExtend<
    SubscriptionOptions<Events, 'note'>
  >()
})

test('catalogues that share a type do not merge', () => {
  expectTypeOf(all['order.shipped']).toEqualTypeOf(orderEvents['order.shipped'])
  expectTypeOf<keyof typeof all>().toEqualTypeOf<keyof Events | keyof typeof orderEvents>()
  // @ts-expect-error -- both have note
  mergeEvents(events, defineEvents({ note: { schema: z.string() } }))
  // @ts-expect-error -- the first and the last
  mergeEvents(orderEvents, events, orderEvents)
})
