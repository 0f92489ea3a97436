import { context, propagation, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import type { ReadableSpan } from '@opentelemetry/sdk-trace'
import { expect, test } from 'vitest'
import {
  ConfigurationError,
  TransactionError,
  type HandlerContext,
  type StoredEvent,
} from '../../src/index.ts'
import { createSpans } from '../../src/telemetry/spans.ts'
import { testBus, type paymentEvents } from '../support/bus.ts'
import { canary, traceOfCanary } from '../support/canary.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { idOf, linkedSpans, registerSdk, textOf } from '../support/open-telemetry.ts'

type Context = HandlerContext<typeof paymentEvents>

const note = (payload: unknown = 'x') => ({ type: 'note', tenantId: 'acme', payload }) as const
const refunded = { type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: '42' } } as const
const quick = { maxAttempts: 3, delaySeconds: 0, backoff: false }
const creationTraceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

test('what an event leads to, across two handlers, is one trace', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'first', events: ['note'], handler: async (_, ctx) => ctx.publish(refunded) })
  bus.subscribe({ name: 'second', events: ['payment.refunded'], handler: () => {} })
  await bus.start()

  const request = trace.getTracer('a service').startSpan('POST /payments')
  const { id } = await context.with(trace.setSpan(context.active(), request), async () =>
    database.db.transaction(async (tx) => bus.publish(tx, { ...note(), correlationId: 'order-7' })),
  )
  request.end()

  const [published, handled, publishedThere, handledThere] = await sdk.named(
    'publish note',
    'process note',
    'publish payment.refunded',
    'process payment.refunded',
  )
  expect(published).toMatchObject({
    kind: SpanKind.PRODUCER,
    parentSpanContext: { spanId: request.spanContext().spanId },
    instrumentationScope: { name: 'bossbus' },
    status: { code: SpanStatusCode.UNSET },
    links: [],
    attributes: {
      'messaging.system': 'bossbus',
      'messaging.operation.name': 'publish',
      'messaging.operation.type': 'send',
      'messaging.destination.name': 'note',
      'messaging.message.id': id,
      'messaging.message.conversation_id': 'order-7',
      'messaging.bossbus.tenant.id': 'acme',
    },
  })
  expect(handled).toMatchObject({
    kind: SpanKind.CONSUMER,
    parentSpanContext: { spanId: published?.spanContext().spanId },
    attributes: {
      'messaging.system': 'bossbus',
      'messaging.operation.name': 'process',
      'messaging.operation.type': 'process',
      'messaging.destination.name': 'note',
      'messaging.destination.subscription.name': 'first',
      'messaging.message.id': id,
      'messaging.message.conversation_id': 'order-7',
      'messaging.bossbus.tenant.id': 'acme',
      'messaging.bossbus.attempt': 1,
    },
  })
  expect(publishedThere?.parentSpanContext?.spanId).toBe(handled?.spanContext().spanId)
  expect(handledThere?.parentSpanContext?.spanId).toBe(publishedThere?.spanContext().spanId)
  for (const span of [published, handled, publishedThere, handledThere])
    expect(span?.spanContext().traceId).toBe(request.spanContext().traceId)
  // The link is there in any case.
  expect(handled?.links.map((link) => link.context.spanId)).toEqual([published?.spanContext().spanId])
  // Nothing else has spans, but for the writing of outcomes.
  const others = sdk.spans.filter(({ name }) => !/^(publish|process|settle) |^POST/.test(name))
  expect(others).toEqual([])
})

test('each subscription has a handler call of its own in the trace', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  for (const name of ['one', 'two']) bus.subscribe({ name, events: ['note'], handler: () => {} })
  await bus.start()
  await bus.tryPublish(note())
  const [published, ...handled] = await sdk.named('publish note', 'process note', 'process note')
  expect(handled.map((span) => textOf(span, 'messaging.destination.subscription.name')).toSorted()).toEqual([
    '"one"',
    '"two"',
  ])
  for (const span of handled) expect(span.parentSpanContext?.spanId).toBe(published?.spanContext().spanId)
})

test('writing what became of a single event is a part of its trace', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'one', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.tryPublish(note())
  const [published, handled, settled] = await sdk.named('publish note', 'process note', 'settle note')
  expect(settled).toMatchObject({
    kind: SpanKind.CLIENT,
    parentSpanContext: { spanId: handled?.spanContext().spanId },
    attributes: {
      'messaging.system': 'bossbus',
      'messaging.operation.name': 'settle',
      'messaging.operation.type': 'settle',
      'messaging.destination.name': 'note',
      'messaging.destination.subscription.name': 'one',
    },
  })
  expect(settled?.attributes).not.toHaveProperty('messaging.batch.message_count')
  expect(settled?.links.map((link) => link.context.spanId)).toEqual([published?.spanContext().spanId])
})

test('later attempts link to where the event was created, each in a trace of its own', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'failing', events: ['note'], retry: quick },
    handler: (_, { attempt }) => {
      if (attempt < 3) throw new TypeError(`attempt ${attempt}`)
    },
  })
  await bus.start()
  await bus.tryPublish(note())
  const [published, ...attempts] = await sdk.named(
    'publish note',
    'process note',
    'process note',
    'process note',
  )
  const created = published?.spanContext()
  expect(attempts.map((span) => span.attributes['messaging.bossbus.attempt'])).toEqual([1, 2, 3])
  expect(attempts.map(linkedSpans)).toEqual([[created?.spanId], [created?.spanId], [created?.spanId]])
  expect(attempts.map(({ parentSpanContext }) => parentSpanContext?.spanId)).toEqual([
    created?.spanId,
    undefined,
    undefined,
  ])
  expect(new Set([created?.traceId, ...attempts.map((span) => span.spanContext().traceId)]).size).toBe(3)
  // What failed says so; what was delivered has no error.
  expect(attempts.map((span) => span.attributes['error.type'])).toEqual(['TypeError', 'TypeError', undefined])
  expect(attempts.map(({ status }) => status)).toEqual([
    { code: SpanStatusCode.ERROR, message: 'attempt 1' },
    { code: SpanStatusCode.ERROR, message: 'attempt 2' },
    { code: SpanStatusCode.UNSET },
  ])
  expect(attempts[0]?.events).toMatchObject([
    { name: 'exception', attributes: { 'exception.type': 'TypeError', 'exception.message': 'attempt 1' } },
  ])
  expect(attempts[2]?.events).toEqual([])
})

test('a replay links to where the event was created, in a trace of its own', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'one', events: ['note'], handler: () => {} })
  await bus.start()
  const published = await bus.tryPublish(note())
  const [created] = await sdk.named('publish note', 'process note')
  const id = published?.id ?? ''
  const operation = await bus.replay({ ids: [id], subscriptions: ['one'], by: 'a test' })
  const [, , replayed] = await sdk.named('publish note', 'process note', 'process note')
  expect(replayed?.attributes['messaging.bossbus.replay.id']).toBe(operation.id)
  expect(replayed?.attributes['messaging.bossbus.attempt']).toBe(1)
  expect(replayed?.parentSpanContext).toBeUndefined()
  expect(replayed?.links.map((link) => link.context.spanId)).toEqual([created?.spanContext().spanId])
})

test('an event that was published long ago begins a trace of its own', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'one', events: ['note'], handler: () => {} })
  await bus.migrate()
  await bus.tryPublish(note('old'))
  await bus.tryPublish(note('young'))
  await database.rows(
    `update bus.events set created_at = created_at - interval '2 hours' where payload = '"old"'`,
  )
  await bus.start()
  const [old, young, ...handled] = await sdk.named(
    'publish note',
    'publish note',
    'process note',
    'process note',
  )
  const parentOf = (created: ReadableSpan | undefined): string | undefined =>
    handled.find((span) => linkedSpans(span).includes(idOf(created)))?.parentSpanContext?.spanId
  expect(parentOf(old)).toBeUndefined()
  expect(parentOf(young)).toBe(idOf(young))
  expect(handled.every((span) => linkedSpans(span).length === 1)).toBe(true)
})

test('baggage of the publisher is there in the handler, and in what it publishes', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: Record<string, string | undefined> = {}
  const userNow = (): string | undefined => propagation.getBaggage(context.active())?.getEntry('user')?.value
  bus.subscribe({
    name: 'first',
    events: ['note'],
    handler: async (event, ctx: Context) => {
      seen['first'] = userNow()
      seen['metadata'] = event.metadata['baggage']
      await ctx.publish(refunded)
    },
  })
  bus.subscribe({
    name: 'second',
    events: ['payment.refunded'],
    handler: () => {
      seen['second'] = userNow()
    },
  })
  await bus.start()
  const baggage = propagation.createBaggage({ user: { value: 'käthe' } })
  await context.with(propagation.setBaggage(context.active(), baggage), async () => bus.tryPublish(note()))
  await sdk.named('process payment.refunded')
  expect(seen).toEqual({ first: 'käthe', second: 'käthe', metadata: 'user=k%C3%A4the' })
})

test('where an event was created is not changed, but linked to', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'one', events: ['note'], handler: () => {} })
  await bus.start()
  const metadata = { traceparent: creationTraceparent, source: 'a bridge' }
  const published = await bus.tryPublish({ ...note(), metadata })
  const [sent, handled] = await sdk.named('publish note', 'process note')
  const stored = await bus.events.get(published?.id ?? '')
  expect(stored?.metadata).toEqual(metadata)
  expect(sent?.kind).toBe(SpanKind.CLIENT)
  expect(sent?.links.map((link) => link.context.spanId)).toEqual(['b7ad6b7169203331'])
  expect(handled?.spanContext().traceId).toBe('0af7651916cd43dd8448eb211c80319c')
  expect(handled?.parentSpanContext).toMatchObject({ spanId: 'b7ad6b7169203331' })
})

test('the trace context is added to what the caller gives', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.migrate()
  const published = await bus.tryPublish({ ...note(), metadata: { form: 'a', baggage: 'mine=1' } })
  const [sent] = await sdk.named('publish note')
  const { traceId = '', spanId = '' } = sent?.spanContext() ?? {}
  const stored = await bus.events.get(published?.id ?? '')
  expect(stored?.metadata).toEqual({
    form: 'a',
    baggage: 'mine=1',
    traceparent: `00-${traceId}-${spanId}-01`,
  })
})

test('metadata that are full stay as they are', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.migrate()
  const full = { text: 'x'.repeat(16_384 - '{"text":""}'.length) }
  const room = { text: 'x'.repeat(16_384 - '{"text":""}'.length - 200) }
  const baggage = propagation.createBaggage({ long: { value: 'y'.repeat(1000) } })
  const publish = async (metadata: Record<string, string>) => {
    const published = await context.with(propagation.setBaggage(context.active(), baggage), async () =>
      bus.tryPublish({ ...note(), metadata }),
    )
    return (await bus.events.get(published?.id ?? ''))?.metadata ?? {}
  }
  expect(Object.keys(await publish(full))).toEqual(['text'])
  expect(Object.keys(await publish(room)).toSorted()).toEqual(['text', 'traceparent'])
  expect(Object.keys(await publish({})).toSorted()).toEqual(['baggage', 'traceparent'])
  expect(sdk.spans.length).toBe(3)
})

test('the events of one call share its span, unless each is to have its own', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const plain = testBus(database.url)
  const detailed = testBus(database.url, { source: 'detailed', telemetry: { createSpans: true } })
  await plain.migrate()
  const batch = [note('a'), refunded, { ...note('b'), metadata: { traceparent: creationTraceparent } }]

  const published = await database.db.transaction(async (tx) => plain.publishMany(tx, batch))
  const [call] = await sdk.named('publish')
  expect(call).toMatchObject({
    kind: SpanKind.PRODUCER,
    attributes: { 'messaging.batch.message_count': 3, 'messaging.operation.type': 'send' },
  })
  expect(call?.attributes).not.toHaveProperty('messaging.destination.name')
  expect(call?.attributes).not.toHaveProperty('messaging.message.id')
  expect(call && linkedSpans(call)).toEqual(['b7ad6b7169203331'])
  const parents = await Promise.all(published.map(async ({ id }) => spanIdIn(await plain.events.get(id))))
  expect(parents).toEqual([call?.spanContext().spanId, call?.spanContext().spanId, 'b7ad6b7169203331'])

  const ids = await database.db.transaction(async (tx) => detailed.publishMany(tx, batch))
  const [, send, a, b] = await sdk.named('publish', 'publish', 'create note', 'create payment.refunded')
  expect(send?.kind).toBe(SpanKind.CLIENT)
  expect(a).toMatchObject({
    kind: SpanKind.PRODUCER,
    attributes: {
      'messaging.operation.name': 'create',
      'messaging.operation.type': 'create',
      'messaging.destination.name': 'note',
      'messaging.message.id': ids[0]?.id,
    },
  })
  expect(send && linkedSpans(send).toSorted()).toEqual([idOf(a), idOf(b), 'b7ad6b7169203331'].toSorted())
  const own = await Promise.all(ids.map(async ({ id }) => spanIdIn(await plain.events.get(id))))
  expect(own).toEqual([a?.spanContext().spanId, b?.spanContext().spanId, 'b7ad6b7169203331'])
  // The third event has said where it was created.
  expect(sdk.spans.filter(({ name }) => name.startsWith('create')).length).toBe(2)
})

function spanIdIn(
  event: { readonly metadata: Readonly<Record<string, string>> } | undefined,
): string | undefined {
  return event?.metadata['traceparent']?.split('-')[2]
}

test('a call that is refused has a span that says why', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.migrate()
  await bus.tryPublish({ type: 'payment.paid', tenantId: 'acme', payload: { paymentId: canary } } as never)
  await bus.tryPublish({ type: `unknown-${canary}`, tenantId: 'acme', payload: {} } as never)
  await expect(bus.publish(database.db as never, note())).rejects.toThrow(TransactionError)
  const [invalid, unknown, outside] = await sdk.named('publish payment.paid', 'publish', 'publish note')
  expect(invalid?.attributes['error.type']).toBe('BUS_INVALID_EVENT')
  expect(unknown?.attributes['error.type']).toBe('BUS_UNKNOWN_EVENT_TYPE')
  expect(outside?.attributes['error.type']).toBe('BUS_NOT_IN_TRANSACTION')
  for (const span of [invalid, unknown, outside]) expect(span?.status.code).toBe(SpanStatusCode.ERROR)
  // The type of the event is no payload, and named by the error.
  expect(JSON.stringify([invalid?.attributes, invalid?.events, invalid?.status])).not.toMatch(traceOfCanary)
})

test('an error is recorded as logs and dead letters have it: without what quotes the payload', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'failing',
    events: ['note'],
    retry: { maxAttempts: 1 },
    handler: async ({ payload }) => {
      await database.db.execute(`select '${String(payload)}'::int`)
    },
  })
  await bus.start()
  await bus.tryPublish(note(canary))
  const [handled, settled] = await sdk.named('process note', 'settle note')
  // The dead letter was written.
  expect(settled?.status.code).toBe(SpanStatusCode.UNSET)
  expect(handled?.attributes['error.type']).toBe('PostgresError')
  expect(handled?.status.message).toBe('invalid input syntax for type integer: "…"')
  expect(JSON.stringify([handled?.attributes, handled?.events, handled?.status])).not.toMatch(traceOfCanary)
})

test('an event is cancelled in a span', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.migrate()
  const published = await bus.tryPublish({ ...note(), availableIn: { seconds: 60 } })
  const id = published?.id ?? ''
  expect(await bus.cancel(id)).toBe(true)
  await expect(bus.cancel('no id')).rejects.toThrow(ConfigurationError)
  const [cancelled, refused] = await sdk.named('cancel', 'cancel')
  expect(cancelled).toMatchObject({
    kind: SpanKind.CLIENT,
    attributes: { 'messaging.operation.name': 'cancel', 'messaging.message.id': id },
  })
  expect(cancelled?.attributes).not.toHaveProperty('messaging.operation.type')
  expect(refused?.attributes).toMatchObject({ 'error.type': 'BUS_INVALID_OPTION' })
})

test('a handler that takes too long has a span that says so', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'slow', events: ['note'], timeoutSeconds: 1, retry: { maxAttempts: 1 } },
    handler: async (_, { signal }) => new Promise((resolve) => signal.addEventListener('abort', resolve)),
  })
  await bus.start()
  await bus.tryPublish(note())
  const [handled] = await sdk.named('process note')
  expect(handled?.attributes['error.type']).toBe('BUS_HANDLER_TIMEOUT')
})

test('handlers of a bus that was started in a span are no part of that trace', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const boot = trace.getTracer('a service').startSpan('boot')
  bus.subscribe({ name: 'one', events: ['note'], handler: () => {} })
  await context.with(trace.setSpan(context.active(), boot), async () => {
    await bus.start()
    await bus.subscribe({ name: 'two', events: ['payment.refunded'], handler: () => {} }).ready()
  })
  boot.end()
  await bus.tryPublish(note())
  await bus.tryPublish(refunded)
  const handled = await sdk.named('process note', 'process payment.refunded')
  for (const span of handled) expect(span.spanContext().traceId).not.toBe(boot.spanContext().traceId)
  // Even an event that carries no context.
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'sql', '"plain"')`,
  )
  await until(
    'the event of plain SQL is handled',
    () => sdk.spans.filter(({ name }) => name === 'process note').length === 2,
  )
  const plain = sdk.spans.findLast(({ name }) => name === 'process note')
  expect(plain?.parentSpanContext).toBeUndefined()
  expect(plain?.links).toEqual([])
})

test('a handler that is called within another span is a part of that one', () => {
  const sdk = registerSdk()
  const around = trace.getTracer('a service').startSpan('around')
  const event = {
    ...{ id: 'x', type: 'note', tenantId: 'acme', payload: 1, createdAt: new Date() },
    metadata: { traceparent: creationTraceparent },
  } as unknown as StoredEvent
  const call = { event, subscription: 'one', attempt: 1, replayId: undefined }
  const spans = createSpans(false)
  context.with(trace.setSpan(context.active(), around), () => spans.process(call))?.span.end()
  spans.process(call)?.span.end()
  const [within, alone] = sdk.spans
  expect(within?.parentSpanContext?.spanId).toBe(around.spanContext().spanId)
  expect(within && linkedSpans(within)).toEqual(['b7ad6b7169203331'])
  expect(alone?.parentSpanContext?.spanId).toBe('b7ad6b7169203331')
})

test('an event continues the trace that its own metadata name, whatever handlers do with those of others', () => {
  const sdk = registerSdk()
  const spans = createSpans(false)
  const handle = (metadata: Record<string, string>): void => {
    const event = { id: 'x', type: 'note', tenantId: 'acme', createdAt: new Date(), metadata }
    const call = { subscription: 'one', attempt: 1, replayId: undefined }
    spans.process({ ...call, event: event as unknown as StoredEvent })?.span.end()
  }
  const other = creationTraceparent.replace('b7ad6b7169203331', '00f067aa0ba902b7')
  const metadata = { traceparent: creationTraceparent }
  handle(metadata)
  handle({ ...metadata })
  metadata.traceparent = other
  handle({ traceparent: other })
  handle({ traceparent: creationTraceparent, baggage: 'user=x' })
  handle({})
  handle({ traceparent: creationTraceparent })
  expect(sdk.spans.map(({ parentSpanContext }) => parentSpanContext?.spanId)).toEqual([
    'b7ad6b7169203331',
    'b7ad6b7169203331',
    '00f067aa0ba902b7',
    'b7ad6b7169203331',
    undefined,
    'b7ad6b7169203331',
  ])
})

test('what is asked of the database says which server it is', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'one', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.tryPublish(note())
  await expect(bus.cancel('no id')).rejects.toThrow(ConfigurationError)
  const { hostname, port } = new URL(database.url)
  const [handled, ...asking] = await sdk.named('process note', 'publish note', 'settle note', 'cancel')
  for (const span of asking)
    expect(span.attributes).toMatchObject({ 'server.address': hostname, 'server.port': Number(port) })
  expect(handled?.attributes).not.toHaveProperty('server.address')
})
