import { expectTypeOf, test } from 'vitest'
import type { HandlerTransaction, StoredEvent } from '../../src/index.ts'
import { crashAtEveryStep, createTestBus, type CrashReport } from '../../src/testing/index.ts'
import { events } from './support.ts'

const database = 'postgres://localhost/postgres'

test('a test bus knows the catalogue as any bus does', async () => {
  const bus = await createTestBus({ database, events })
  bus.subscribe({
    name: 'typed',
    events: ['payment.paid'],
    handler: ({ payload }) => expectTypeOf(payload).toEqualTypeOf<{ cents: number; currency: string }>(),
  })
  expectTypeOf(bus.waitFor({ type: 'payment.paid' }, 'delivered')).resolves.toEqualTypeOf<StoredEvent>()
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
