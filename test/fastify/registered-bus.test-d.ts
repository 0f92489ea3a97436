import type { FastifyInstance, FastifyRequest } from 'fastify'
import { expectTypeOf, test } from 'vitest'
import type { events as demoEvents } from '../../src/demo/events.ts'
import type { BusPluginOptions, CatalogueOf, RegisteredBus } from '../../src/fastify/index.ts'
import { bus as busPlugin } from '../../src/fastify/index.ts'
import type { Bus, DrizzleTransaction, EventCatalogue, Publisher } from '../../src/index.ts'
import type { paymentEvents } from '../support/catalogue.ts'

declare const app: FastifyInstance
declare const request: FastifyRequest
declare const tx: DrizzleTransaction

const payload = { paymentId: 'p1', amountCents: 1250, currency: 'EUR', verifiedBy: 'ada', method: 'card' }

test('a program that says nothing has a bus of any events', () => {
  expectTypeOf<CatalogueOf<object>>().toEqualTypeOf<EventCatalogue>()
  const publish = (null as unknown as Publisher).publish
  expectTypeOf(publish).toBeCallableWith(tx, { type: 'anything', tenantId: 'acme', payload: { at: 'all' } })
})

test('a program that says its bus has the events of that bus', () => {
  expectTypeOf<CatalogueOf<{ bus: Bus<typeof paymentEvents> }>>().toEqualTypeOf<typeof paymentEvents>()
})

// src/demo/events.ts says for this program what its bus is.
test('app.bus and request.bus know the events of the bus that was said', () => {
  expectTypeOf<RegisteredBus['bus']>().toEqualTypeOf<Bus<typeof demoEvents>>()
  expectTypeOf(app.bus).toEqualTypeOf<Bus<typeof demoEvents>>()
  expectTypeOf(request.bus).toEqualTypeOf<Publisher<typeof demoEvents>>()
  expectTypeOf(request.bus.publish).toBeCallableWith(tx, { type: 'payment.paid', tenantId: 'acme', payload })
})

test('what the catalogue does not have is a compile error', () => {
  const { amountCents: _, ...incomplete } = payload
  // @ts-expect-error -- no such type
  expectTypeOf(request.bus.publish).toBeCallableWith(tx, { type: 'payment.payed', tenantId: 'acme', payload })
  const lacking = { type: 'payment.paid', tenantId: 'acme', payload: incomplete } as const
  // @ts-expect-error -- the payload lacks its amount
  expectTypeOf(request.bus.publish).toBeCallableWith(tx, lacking)
  // @ts-expect-error -- no tenant
  expectTypeOf(app.bus.tryPublish).toBeCallableWith({ type: 'payment.paid', payload })
})

test('handlers get the payload of their events', () => {
  app.bus.subscribe({
    name: 'typed',
    events: ['payment.*'],
    handler: (event) => {
      expectTypeOf(event.payload.amountCents).toEqualTypeOf<number>()
    },
  })
})

test('the plugin takes a catalogue or a bus, not both, and only the one that was said', () => {
  type MadeFrom<E> = { database: string; events: E; source: string }
  expectTypeOf<{ bus: Bus<typeof demoEvents>; migrate: true }>().toExtend<BusPluginOptions>()
  expectTypeOf<{ bus: Bus<typeof paymentEvents> }>().not.toExtend<BusPluginOptions>()
  expectTypeOf<MadeFrom<typeof demoEvents>>().toExtend<BusPluginOptions>()
  expectTypeOf<MadeFrom<typeof paymentEvents>>().not.toExtend<BusPluginOptions>()
  expectTypeOf<{ bus: Bus<typeof demoEvents>; source: string }>().not.toExtend<BusPluginOptions>()
  // @ts-expect-error -- a misspelt option
  void app.register(busPlugin, { bus: app.bus, migrat: true })
})
