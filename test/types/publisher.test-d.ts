// oxlint-disable vitest/expect-expect -- a line that must not compile is an assertion too
import { AsyncLocalStorage } from 'node:async_hooks'
import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import {
  createBus,
  defineEvents,
  eventTypes,
  type Bus,
  type DrizzleTransaction,
  type HandlerContext,
  type HandlerTransaction,
  type NewEvent,
  type Publisher,
} from '../../src/index.ts'
import { bus, events, type Events } from './support.ts'

declare const tx: DrizzleTransaction

const noteEvents = defineEvents({ note: { schema: z.unknown() } })
type NoteEvents = typeof noteEvents
const options = { database: 'postgres://localhost', events, source: 'a' }

describe('a publisher', () => {
  test('is the bus, what it is narrowed to, and the context of a handler', () => {
    const note = async (publisher: Publisher<NoteEvents>): Promise<unknown> =>
      publisher.publish(tx, { type: 'note', tenantId: 'acme', payload: 1 })
    const use = async (ctx: HandlerContext<Events>): Promise<void> => {
      await note(bus)
      await note(bus.with({ subject: 's' }))
      await note(ctx)
      await note(ctx.with({ subject: 's' }))
      const narrow: Publisher<NoteEvents> = ctx
      // @ts-expect-error -- it publishes notes only
      await narrow.publish(tx, { type: 'order.placed', tenantId: 'a', payload: 1 })
    }
    expectTypeOf(use).toBeFunction()
    expectTypeOf<Publisher<NoteEvents>>().not.toExtend<Publisher<Events>>()
    expectTypeOf<Bus<Events>>().toExtend<Publisher<Events>>()
    expectTypeOf<HandlerContext<Events>>().toExtend<Publisher<Events, 'tenantId'>>()
    // @ts-expect-error -- a bus that does not know the tenant
    expectTypeOf<Bus<Events>>().toExtend<Publisher<Events, 'tenantId'>>()
  })

  test('need not be told the tenant where it knows it, and only there', () => {
    const known = bus.with({ tenantId: 'acme' })
    expectTypeOf(known).toEqualTypeOf<Publisher<Events, 'tenantId'>>()
    void known.publish(tx, { type: 'note', payload: 1 })
    void known.publish(tx, { type: 'note', payload: 1, tenantId: 'another' })
    void known.tryPublish({ type: 'note', payload: 1 })
    void known.publishMany(tx, [{ type: 'note', payload: 1 }])
    void known.with({ subject: 's' }).publish(tx, { type: 'note', payload: 1 })
    // @ts-expect-error -- a payload all the same
    void known.publish(tx, { type: 'note' })
    // @ts-expect-error -- nobody said the tenant
    void bus.with({ correlationId: 'c' }).publish(tx, { type: 'note', payload: 1 })
    // @ts-expect-error -- it may be undefined
    void bus.with({ tenantId: undefined }).publish(tx, { type: 'note', payload: 1 })
    // @ts-expect-error -- no such default
    bus.with({ tenant: 'acme' })
    // @ts-expect-error -- an order has no default
    bus.with({ orderingKey: 'k' })
  })

  test('takes defaults from a function, such as that of an AsyncLocalStorage', () => {
    const context = new AsyncLocalStorage<{ tenantId: string; correlationId: string }>()
    void bus.with(() => ({ tenantId: 'acme' })).publish(tx, { type: 'note', payload: 1 })
    void bus.with(() => context.getStore()).publish(tx, { type: 'note', payload: 1, tenantId: 'acme' })
    // @ts-expect-error -- outside a request there is none
    void bus.with(() => context.getStore()).publish(tx, { type: 'note', payload: 1 })
    // @ts-expect-error -- a promise is no default
    bus.with(async () => ({ tenantId: 'acme' }))
  })
})

test('a bus with defaults needs no tenant', () => {
  const single = createBus({ ...options, defaults: { tenantId: 'acme' } })
  expectTypeOf(single).toEqualTypeOf<Bus<Events, HandlerTransaction, 'tenantId'>>()
  void single.publish(tx, { type: 'note', payload: 1 })
  const asked = createBus({ ...options, defaults: () => ({ tenantId: 'acme', metadata: { user: 'ada' } }) })
  void asked.tryPublish({ type: 'note', payload: 1 })
  const traced = createBus({ ...options, defaults: () => ({ correlationId: 'c' }) })
  // @ts-expect-error -- whose?
  void traced.publish(tx, { type: 'note', payload: 1 })
  expectTypeOf(createBus(options)).toEqualTypeOf<Bus<Events>>()
  // @ts-expect-error -- no such default
  createBus({ ...options, defaults: { tenant: 'acme' } })
})

test('the context of a handler inherits the tenant, and cancels', () => {
  bus.subscribe({
    name: 'a',
    events: ['note'],
    handler: async (event, ctx) => {
      const { id } = await ctx.publish({ type: 'note', payload: 1 })
      await ctx.publish(tx, { type: 'note', payload: 1 })
      await ctx.publish({ type: 'note', payload: 1, tenantId: 'another' })
      await ctx.publishMany([{ type: 'note', payload: 1 }])
      await ctx.publishMany(tx, [{ type: 'note', payload: event.payload }])
      await ctx.tryPublish({ type: 'note', payload: 1 })
      expectTypeOf(await ctx.cancel(id)).toEqualTypeOf<boolean>()
      await ctx.cancel(tx, id, { tenantId: 'another' })
      // @ts-expect-error -- no such type
      await ctx.publish({ type: 'notes', payload: 1 })
    },
  })
})

test('the types of a catalogue are constants', () => {
  const types = eventTypes(events)
  expectTypeOf(types['payment.paid']).toEqualTypeOf<'payment.paid'>()
  void bus.publish(tx, { type: types.note, tenantId: 'acme', payload: 1 })
  // @ts-expect-error -- no such type
  void types['payment.payed']
  expectTypeOf<NewEvent<Events, 'tenantId'>>().toExtend<{ tenantId?: string | undefined }>()
})

test('an event is available at a time or in some seconds', () => {
  void bus.publish(tx, { type: 'note', tenantId: 'a', payload: 1, availableIn: { seconds: 60 } })
  // @ts-expect-error -- seconds
  void bus.publish(tx, { type: 'note', tenantId: 'a', payload: 1, availableIn: { minutes: 1 } })
  // @ts-expect-error -- with its unit
  void bus.publish(tx, { type: 'note', tenantId: 'a', payload: 1, availableIn: 60 })
})
