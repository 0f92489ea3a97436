import { expectTypeOf, test } from 'vitest'
import {
  defineSubscription,
  type EventOf,
  type HandlerTransaction,
  type Publisher,
  type StoredEvent,
} from '../../src/index.ts'
import {
  crashAtEveryStep,
  createFakePublisher,
  createTestBus,
  runHandler,
  type CrashReport,
} from '../../src/testing/index.ts'
import { events, type Events } from './support.ts'

const database = 'postgres://localhost/postgres'

test('a test bus knows the catalogue as any bus does', async () => {
  const bus = await createTestBus({ database, events })
  bus.subscribe({
    name: 'typed',
    events: ['payment.paid'],
    handler: ({ payload }) => expectTypeOf(payload).toEqualTypeOf<{ cents: number; currency: string }>(),
  })
  expectTypeOf(bus.waitFor({ type: 'payment.paid' }, 'delivered')).resolves.toEqualTypeOf<
    StoredEvent<'payment.paid', { cents: number; currency: string }>
  >()
  expectTypeOf(bus.published({ type: 'payment.refunded', payload: { id: '1' } })).resolves.toEqualTypeOf<
    StoredEvent<'payment.refunded', { id: string }>[]
  >()
  expectTypeOf(bus.published()).resolves.toEqualTypeOf<EventOf<Events, keyof Events>[]>()
  await bus.waitFor(await bus.tryPublish({ type: 'note', tenantId: 'a', payload: 1 }), 'delivered')
  // @ts-expect-error -- a misspelt key of the payload
  await bus.waitFor({ type: 'payment.paid', payload: { cent: 1 } }, 'delivered')
  // @ts-expect-error -- cents are a number
  await bus.published({ type: 'payment.paid', payload: { cents: '1' } })
  // @ts-expect-error -- a misspelt field
  await bus.published({ tenant: 'acme' })
  // @ts-expect-error -- the catalogue has no such event
  await bus.waitFor({ type: 'payment.piad' }, 'delivered')
  // @ts-expect-error -- nothing comes to that
  await bus.waitFor('id', 'done')
})

test('a subscription to crash is typed by the catalogue and its mode', () => {
  const options = { database, events, effects: () => 1 }
  const event = { type: 'payment.paid', tenantId: 'a', payload: { cents: '1' } } as const
  const run = crashAtEveryStep(
    {
      name: 'once',
      events: ['payment.paid'],
      mode: 'exactly-once',
      handler: ({ payload }, { tx }) => {
        expectTypeOf(payload.cents).toEqualTypeOf<number>()
        expectTypeOf(tx).toEqualTypeOf<HandlerTransaction>()
      },
    },
    event,
    options,
  )
  expectTypeOf(run).resolves.toEqualTypeOf<CrashReport>()
  void crashAtEveryStep(
    ({ url }) => ({
      name: 'made',
      events: ['payment.paid'],
      handler: ({ id }) => {
        expectTypeOf(url).toBeString()
        expectTypeOf(id).toBeString()
      },
    }),
    () => event,
    options,
  )
  // @ts-expect-error -- the catalogue has no such event
  void crashAtEveryStep({ name: 'x', events: ['payment.piad'], handler: () => {} }, event, options)
  // @ts-expect-error -- without `effects` nothing can be told
  void crashAtEveryStep({ name: 'x', events: ['payment.paid'], handler: () => {} }, event, {
    database,
    events,
  })
})

test('runHandler takes the events that the subscription gets, and a transaction where its handler needs one', async () => {
  const noted = defineSubscription(events, {
    name: 'a',
    events: ['note', 'payment.refunded'],
    handler: () => {},
  })
  const ledger = defineSubscription(events, {
    name: 'b',
    events: ['note'],
    mode: 'exactly-once',
    handler: () => {},
  })
  const run = await runHandler(events, noted, { type: 'payment.refunded', payload: { id: '1' } })
  expectTypeOf(run.published).toEqualTypeOf<readonly EventOf<Events, keyof Events>[]>()
  await runHandler(
    events,
    ledger,
    { type: 'note', payload: 1 },
    { tx: null as unknown as HandlerTransaction },
  )
  // @ts-expect-error -- the subscription does not get it
  await runHandler(events, noted, { type: 'payment.paid', payload: { cents: '1' } })
  // @ts-expect-error -- not its payload
  await runHandler(events, noted, { type: 'payment.refunded', payload: { id: 1 } })
  // @ts-expect-error -- no transaction
  await runHandler(events, ledger, { type: 'note', payload: 1 })
})

test('a fake publisher is a publisher', () => {
  const publisher = createFakePublisher(events)
  expectTypeOf(publisher).toExtend<Publisher<Events>>()
  expectTypeOf(publisher.published).toEqualTypeOf<readonly EventOf<Events, keyof Events>[]>()
  expectTypeOf(createFakePublisher(events, { defaults: { tenantId: 'a' } })).toExtend<
    Publisher<Events, 'tenantId'>
  >()
  // @ts-expect-error -- nobody said the tenant
  void publisher.tryPublish({ type: 'note', payload: 1 })
})
