// oxlint-disable vitest/expect-expect -- a line that must not compile is an assertion too
import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import { describe, expectTypeOf, test } from 'vitest'
import type {
  BusLogger,
  EventMetadata,
  EventOf,
  ExactlyOnceContext,
  HandlerContext,
  HandlerTransaction,
  Published,
  StoredEvent,
} from '../../src/index.ts'
import { bus, type Events } from './support.ts'

const name = 'a-subscription'

describe('the event of a handler', () => {
  test('is that of the named type, with what the schema gives', () => {
    bus.subscribe({
      name,
      events: ['payment.paid'],
      handler: (event) => {
        expectTypeOf(event).toEqualTypeOf<StoredEvent<'payment.paid', { cents: number; currency: string }>>()
        expectTypeOf(event.type).toEqualTypeOf<'payment.paid'>()
        expectTypeOf(event.payload.cents).toEqualTypeOf<number>()
      },
    })
  })

  test('is a union over several names that the type tells apart', () => {
    bus.subscribe({
      name,
      events: ['payment.paid', 'order.placed', 'note'],
      handler: (event) => {
        expectTypeOf(event.type).toEqualTypeOf<'payment.paid' | 'order.placed' | 'note'>()
        switch (event.type) {
          case 'payment.paid':
            expectTypeOf(event.payload).toEqualTypeOf<{ cents: number; currency: string }>()
            break
          case 'order.placed':
            expectTypeOf(event.payload).toEqualTypeOf<{ total: number }>()
            break
          case 'note':
            expectTypeOf(event.payload).toBeUnknown()
            break
          default:
            expectTypeOf(event).toBeNever()
        }
        // @ts-expect-error -- a type that was not asked for
        if (event.type === 'payment.refunded') return
        // @ts-expect-error -- not every payload of the union has cents
        expectTypeOf(event.payload.cents).toBeNumber()
      },
    })
  })

  test('follows one-segment wildcards', () => {
    bus.subscribe({
      name,
      events: ['payment.*'],
      handler: (event) => {
        expectTypeOf(event).toEqualTypeOf<EventOf<Events, 'payment.paid' | 'payment.refunded'>>()
        if (event.type === 'payment.refunded') expectTypeOf(event.payload).toEqualTypeOf<{ id: string }>()
      },
    })
    bus.subscribe({
      name,
      events: ['*'],
      handler: (event) => {
        expectTypeOf(event.type).toEqualTypeOf<'note'>()
      },
    })
    bus.subscribe({
      name,
      events: ['*.placed', '*.*.opened'],
      handler: (event) => {
        expectTypeOf(event.type).toEqualTypeOf<'order.placed' | 'payment.dispute.opened'>()
      },
    })
  })

  test('follows wildcards for the rest', () => {
    bus.subscribe({
      name,
      events: ['payment.**'],
      handler: (event) => {
        expectTypeOf(event.type).toEqualTypeOf<
          'payment.paid' | 'payment.refunded' | 'payment.dispute.opened'
        >()
      },
    })
    bus.subscribe({
      name,
      events: ['**'],
      handler: (event) => {
        expectTypeOf(event).toEqualTypeOf<EventOf<Events, keyof Events>>()
      },
    })
  })

  test('is the union of names and patterns together', () => {
    bus.subscribe({
      name,
      events: ['note', '*.placed'],
      handler: (event) => {
        expectTypeOf(event.type).toEqualTypeOf<'note' | 'order.placed'>()
      },
    })
  })

  test('is none where a pattern matches nothing of the catalogue', () => {
    bus.subscribe({
      name,
      events: ['invoice.*'],
      handler: (event) => {
        expectTypeOf(event).toBeNever()
      },
    })
  })

  test('is inferred for a list that was named before', () => {
    const names = ['note', 'order.placed'] as const
    bus.subscribe({
      name,
      events: names,
      handler: (event) => {
        expectTypeOf(event.type).toEqualTypeOf<'note' | 'order.placed'>()
      },
    })
  })

  test('has its other fields', () => {
    expectTypeOf<StoredEvent>().toEqualTypeOf<{
      readonly id: string
      readonly type: string
      readonly source: string
      readonly subject: string | undefined
      readonly tenantId: string
      readonly payload: unknown
      readonly schemaVersion: number
      readonly eventId: string | undefined
      readonly idempotencyKey: string | undefined
      readonly correlationId: string | undefined
      readonly causationId: string | undefined
      readonly orderingKey: string | undefined
      readonly metadata: EventMetadata
      readonly expiresAt: Date | undefined
      readonly createdAt: Date
    }>()
  })
})

describe('subscribe', () => {
  const handler = (): void => {}

  test('does not take a misspelt name', () => {
    // @ts-expect-error -- misspelt
    bus.subscribe({ name, events: ['payment.payed'], handler })
    // @ts-expect-error -- one of two is misspelt
    bus.subscribe({ name, events: ['payment.paid', 'payment.payed'], handler })
    // @ts-expect-error -- the beginning of a name
    bus.subscribe({ name, events: ['payment'], handler })
    // @ts-expect-error -- not a list
    bus.subscribe({ name, events: 'payment.paid', handler })
  })

  test('takes any text with a wildcard', () => {
    bus.subscribe({ name, events: ['payment.*', '**', 'invoice.**', '*.*.*'], handler })
  })

  test('takes explicit undefined for every optional option', () => {
    bus.subscribe({
      name,
      events: ['note'],
      where: undefined,
      mode: undefined,
      concurrency: undefined,
      batchSize: undefined,
      timeoutSeconds: undefined,
      retry: {
        maxAttempts: undefined,
        delaySeconds: undefined,
        backoff: undefined,
        maxDelaySeconds: undefined,
      },
      handler,
    })
    bus.subscribe({ name, events: ['note'], retry: undefined, handler })
  })

  test('does not take an unknown option or one of the wrong type', () => {
    // @ts-expect-error -- misspelt
    bus.subscribe({ name, events: ['note'], handler, concurency: 5 })
    // @ts-expect-error -- seconds are a number
    bus.subscribe({ name, events: ['note'], handler, timeoutSeconds: '60' })
    // @ts-expect-error -- misspelt inside
    bus.subscribe({ name, events: ['note'], handler, retry: { attempts: 3 } })
    // @ts-expect-error -- no handler
    bus.subscribe({ name, events: ['note'] })
    // @ts-expect-error -- a handler is a function
    bus.subscribe({ name, events: ['note'], handler: 5 })
  })

  test('takes handlers that are asynchronous or not, with fewer parameters', () => {
    bus.subscribe({ name, events: ['note'], handler: async () => {} })
    bus.subscribe({ name, events: ['note'], handler: async (event) => Promise.resolve(void event.id) })
    bus.subscribe({ name, events: ['note'], handler: (_event, ctx) => void ctx.attempt })
    bus.subscribe({ name, events: ['note'], handler: async () => [{ id: 1 }] })
  })
})

describe('the context of a handler', () => {
  test('has the attempt, the signal, the logger and whether it is a replay', () => {
    bus.subscribe({
      name,
      events: ['note'],
      handler: (_event, ctx) => {
        expectTypeOf(ctx).toEqualTypeOf<HandlerContext<Events>>()
        expectTypeOf(ctx.attempt).toBeNumber()
        expectTypeOf(ctx.signal).toEqualTypeOf<AbortSignal>()
        expectTypeOf(ctx.log).toEqualTypeOf<BusLogger>()
        // @ts-expect-error -- read only
        ctx.attempt = 2
      },
    })
  })

  test('has a transaction where the mode is exactly-once, and only there', () => {
    bus.subscribe({
      name,
      events: ['payment.paid'],
      mode: 'exactly-once',
      handler: async (event, ctx) => {
        expectTypeOf(ctx).toEqualTypeOf<ExactlyOnceContext<Events>>()
        expectTypeOf(ctx.tx).toEqualTypeOf<HandlerTransaction>()
        expectTypeOf(event.payload.cents).toEqualTypeOf<number>()
        await ctx.tx.transaction(async (nested) => {
          await ctx.publish(nested, { type: 'note', tenantId: event.tenantId, payload: 1 })
        })
        // @ts-expect-error -- misspelt
        await ctx.publish({ type: 'notes', tenantId: event.tenantId, payload: 1 })
      },
    })
    bus.subscribe({
      name,
      events: ['note'],
      handler: (_event, ctx) => expectTypeOf(ctx).not.toHaveProperty('tx'),
    })
    for (const mode of [undefined, 'at-least-once'] as const) {
      bus.subscribe({
        name,
        events: ['note'],
        mode,
        handler: (_event, ctx) => expectTypeOf(ctx).toEqualTypeOf<HandlerContext<Events>>(),
      })
    }
    // @ts-expect-error -- no such mode
    bus.subscribe({ name, events: ['note'], mode: 'at-most-once', handler: () => {} })
  })

  test('publishes what the catalogue has, with a transaction in front or without', () => {
    bus.subscribe({
      name,
      events: ['payment.paid'],
      handler: async (event, ctx) => {
        const { tenantId } = event
        const publishIn = async (db: PostgresJsDatabase): Promise<Published> =>
          db.transaction(async (tx) => ctx.publish(tx, { type: 'note', tenantId, payload: event.payload }))
        expectTypeOf(publishIn).toBeFunction()
        expectTypeOf(ctx.publish({ type: 'note', tenantId, payload: 1 })).resolves.toEqualTypeOf<Published>()
        // @ts-expect-error -- misspelt
        await ctx.publish({ type: 'notes', tenantId, payload: 1 })
        // @ts-expect-error -- the payload of another type
        await ctx.publish({ type: 'payment.refunded', tenantId, payload: { cents: '5' } })
      },
    })
  })
})
