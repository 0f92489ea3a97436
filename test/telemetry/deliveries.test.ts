import { context, trace } from '@opentelemetry/api'
import { expect, test } from 'vitest'
import type { SubscriptionOptions } from '../../src/index.ts'
import { testBus, type paymentEvents } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { idOf, linkedSpans, registerSdk, textOf } from '../support/open-telemetry.ts'

type Options = Partial<SubscriptionOptions<typeof paymentEvents, 'note'>>

const note = (payload: unknown) => ({ type: 'note', tenantId: 'acme', payload }) as const
const refunded = { type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: '42' } } as const
const quick = { maxAttempts: 3, delaySeconds: 0, backoff: false }

test.each<[string, Options, object]>([
  ['a batch', {}, {}],
  ['an ordered subscription', { ordered: true }, { orderingKey: 'k' }],
  ['an exactly-once subscription', { mode: 'exactly-once' } as object, {}],
  [
    'an ordered exactly-once subscription',
    { mode: 'exactly-once', ordered: true } as object,
    { orderingKey: 'k' },
  ],
])('each handler call of %s has a span of its own', async (_, options, fields) => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const active = new Map<unknown, string | undefined>()
  bus.subscribe({
    ...{ name: 'many', events: ['note'], retry: quick, ...options },
    handler: async ({ payload }, ctx) => {
      const { attempt } = ctx
      active.set(`${String(payload)}.${attempt}`, trace.getSpan(context.active())?.spanContext().spanId)
      await new Promise((resolve) => setImmediate(resolve))
      if (payload === 3 && attempt === 1) throw new RangeError('not yet')
      await ctx.publish(refunded)
    },
  })
  await bus.migrate()
  const events = Array.from({ length: 5 }, (__, i) => ({ ...note(i), ...fields }))
  const ids = await database.db.transaction(async (tx) => bus.publishMany(tx, events))
  await bus.start()
  const eventCount = 5
  await until(
    'all are delivered',
    async () =>
      (await database.count(`select count(*) from bus.events where type = 'payment.refunded'`)) ===
      eventCount,
  )
  const [published] = await sdk.named(
    'publish note',
    ...Array.from({ length: eventCount + 1 }, () => 'process note'),
  )
  const handled = sdk.spans.filter(({ name }) => name === 'process note')
  const created = published?.spanContext()
  // Each has the event that it says, and was active while its handler ran.
  expect(handled.map((span) => textOf(span, 'messaging.message.id')).toSorted()).toEqual(
    [...ids, ids[3]].map((published) => JSON.stringify(published?.id)).toSorted(),
  )
  for (const span of handled) {
    const index = ids.findIndex(({ id }) => id === span.attributes['messaging.message.id'])
    const attempt = Number(span.attributes['messaging.bossbus.attempt'])
    expect(active.get(`${index}.${attempt}`)).toBe(span.spanContext().spanId)
    expect(linkedSpans(span)).toEqual([created?.spanId])
    expect(span.parentSpanContext?.spanId).toBe(attempt === 1 ? created?.spanId : undefined)
    expect(span.attributes['error.type']).toBe(index === 3 && attempt === 1 ? 'RangeError' : undefined)
  }
  // What a handler publishes is in the trace of its call.
  const calls = new Map(handled.map((span) => [span.spanContext().spanId, span]))
  const caused = sdk.spans.filter(({ name }) => name === 'publish payment.refunded')
  expect(caused.length).toBe(eventCount)
  for (const span of caused)
    expect(calls.get(span.parentSpanContext?.spanId ?? '')?.spanContext().traceId).toBe(
      span.spanContext().traceId,
    )
})

test('writing what became of several events links to where they were created', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'many', events: ['note', 'payment.refunded'], handler: () => {} })
  await bus.migrate()
  await database.db.transaction(async (tx) => {
    await bus.publish(tx, note(1))
    await bus.publish(tx, note(2))
    await bus.publish(tx, refunded)
  })
  await bus.start()
  const [a, b, c, settled] = await sdk.named(
    'publish note',
    'publish note',
    'publish payment.refunded',
    'settle',
  )
  expect(settled?.parentSpanContext).toBeUndefined()
  expect(settled?.attributes['messaging.batch.message_count']).toBe(3)
  expect(settled?.attributes).not.toHaveProperty('messaging.destination.name')
  expect(settled && linkedSpans(settled).toSorted()).toEqual([a, b, c].map(idOf).toSorted())
})

test('writing what became of the events of one call links to it once', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'many', events: ['note'], handler: () => {} })
  await bus.migrate()
  await database.db.transaction(async (tx) => bus.publishMany(tx, [note(1), note(2), note(3)]))
  await bus.start()
  const [published, settled] = await sdk.named('publish note', 'settle note')
  expect(settled?.attributes['messaging.batch.message_count']).toBe(3)
  expect(settled && linkedSpans(settled)).toEqual([idOf(published)])
})

test('callbacks for dead letters are in no trace', async () => {
  registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const handled: (string | undefined)[] = []
  const told: (string | undefined)[] = []
  const traceNow = (): string | undefined => trace.getSpan(context.active())?.spanContext().traceId
  bus.subscribe({
    ...{ name: 'one', events: ['note'], retry: { maxAttempts: 1 } },
    handler: () => {
      handled.push(traceNow())
      throw new Error('down')
    },
    onDeadLetter: () => void told.push(traceNow()),
  })
  await bus.start()
  // The first look is over by the time of the second one.
  for (const count of [1, 2, 3]) {
    await bus.tryPublish(note(count))
    await until('it is told', () => told.length === count)
  }
  expect(told).toEqual([undefined, undefined, undefined])
  expect(handled).not.toContain(undefined)
})

test('a redriven dead letter begins a trace of its own', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let fails = true
  bus.subscribe({
    ...{ name: 'one', events: ['note'], retry: { maxAttempts: 1 } },
    handler: () => {
      if (fails) throw new Error('down')
    },
  })
  await bus.start()
  const published = await bus.tryPublish(note(1))
  await until('it is a dead letter', async () => (await bus.deadLetters.list()).length === 1)
  fails = false
  await bus.deadLetters.redrive({ subscription: 'one' }, { by: 'a test', probe: 0 })
  const [created, first, again] = await sdk.named('publish note', 'process note', 'process note')
  expect(first?.parentSpanContext?.spanId).toBe(created?.spanContext().spanId)
  expect(again?.attributes).toMatchObject({
    'messaging.message.id': published?.id,
    'messaging.bossbus.attempt': 2,
  })
  expect(again?.parentSpanContext).toBeUndefined()
  expect(again && linkedSpans(again)).toEqual([created?.spanContext().spanId])
  await until('the redrive is counted', async () => (await sdk.measured('bossbus.redriven')).length > 0)
  expect(await sdk.measured('bossbus.redriven')).toMatchObject([
    { attributes: { 'messaging.destination.subscription.name': 'one' }, count: 1 },
  ])
})

test('the canary has no spans and is not measured', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url, { canary: true })
  bus.subscribe({ name: 'one', events: ['note'], handler: () => {} })
  await bus.start()
  await until('the canary is served', async () =>
    bus.canary().then(
      ({ ok }) => ok,
      () => false,
    ),
  )
  expect(sdk.spans).toEqual([])
  expect(await sdk.instruments()).toEqual([])
  await bus.tryPublish(note(1))
  await sdk.named('publish note', 'process note')
})
