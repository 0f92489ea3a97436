import { GCProfiler } from 'node:v8'
import {
  context,
  metrics,
  propagation,
  ROOT_CONTEXT,
  trace,
  type Context,
  type ContextManager,
  type TextMapPropagator,
  type TracerProvider,
} from '@opentelemetry/api'
import {
  SimpleSpanProcessor,
  TracerProvider as SdkTracerProvider,
  AlwaysOffSampler,
  type Sampler,
  type SpanExporter,
} from '@opentelemetry/sdk-trace'
import { expect, onTestFinished, test, vi } from 'vitest'
import { createBus } from '../../src/index.ts'
import { createOtelRecorder } from '../../src/telemetry/otel-recorder.ts'
import { resolveTelemetry } from '../../src/telemetry/telemetry-option.ts'
import { createTelemetry } from '../../src/telemetry/telemetry.ts'
import { createSpans } from '../../src/telemetry/spans.ts'
import { paymentEvents, recordingLogger, testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { registerSdk, unregisterSdk, type SdkOptions } from '../support/open-telemetry.ts'

const note = (payload: unknown = 'x') => ({ type: 'note', tenantId: 'acme', payload }) as const

/** Publishes in both ways, and waits until all is delivered. Resolves to the metadata of the events. */
async function publishAndDeliver(bus: PaymentBus, { db, rows }: TestDatabase): Promise<unknown[]> {
  const handled: unknown[] = []
  bus.subscribe({
    ...{ name: 'one', events: ['note'], retry: { maxAttempts: 2, delaySeconds: 0, backoff: false } },
    handler: async ({ payload }, { attempt }) => {
      if (payload === 'b' && attempt === 1) throw new Error('not yet')
      handled.push(payload)
    },
  })
  await bus.start()
  await bus.tryPublish(note('a'))
  await db.transaction(async (tx) => bus.publishMany(tx, [note('b'), note('c')]))
  const scheduled = await bus.tryPublish({ ...note('cancelled'), availableIn: { seconds: 60 } })
  expect(await bus.cancel(scheduled?.id ?? '')).toBe(true)
  await until('all are delivered', () => handled.length === 3)
  await bus.stop()
  const stored = await rows(`select metadata from bus.events where payload <> '"cancelled"'`)
  return stored.map(({ metadata }) => metadata)
}

test('without an SDK nothing is added to events, and no part of the API is asked for more than the SDK', async () => {
  onTestFinished(() => {
    vi.restoreAllMocks()
  })
  const called = [
    vi.spyOn(context, 'with'),
    vi.spyOn(context, 'active'),
    vi.spyOn(propagation, 'inject'),
    vi.spyOn(propagation, 'extract'),
    vi.spyOn(propagation, 'fields'),
    vi.spyOn(trace, 'setSpan'),
    vi.spyOn(trace, 'getTracer'),
    vi.spyOn(trace, 'getSpan'),
  ]
  const database = await createTestDatabase()
  const logger = recordingLogger()
  expect(await publishAndDeliver(testBus(database.url, { logger }), database)).toEqual([{}, {}, {}])
  // The loops of the bus are started outside of every trace.
  expect(called[0]?.mock.calls.length).toBe(1)
  for (const each of called.slice(1)) expect(each.mock.calls).toEqual([])
})

test('without an SDK a span and a measurement are the look whether there is one', () => {
  const spans = createSpans(true)
  const recorder = createOtelRecorder()
  expect(spans.isOn).toBe(false)
  expect(recorder.isOn).toBe(false)
  expect(spans.publish([{ type: 'note', tenantId: 'acme' }], true)).toBeUndefined()
  expect(spans.cancel(undefined)).toBeUndefined()
  expect(spans.settle('one', [undefined])).toBeUndefined()
})

/** How often memory was collected while a function was called three million times: 0, if it takes none. */
function collectionsOf(call: (n: number) => void): number {
  const profiler = new GCProfiler()
  profiler.start()
  for (let n = 0; n < 3_000_000; n += 1) call(n)
  return profiler.stop().statistics.length
}

test('without an SDK nothing is allocated for an event', () => {
  const spans = createSpans(true)
  const telemetry = createTelemetry(resolveTelemetry())
  const kept: object[] = [{}]
  const tell = (n: number): void => {
    if (spans.isOn || telemetry.recorder.isOn) throw new Error('there is no SDK')
    telemetry.recorder.attempt('note', 'one', n, undefined, undefined)
    telemetry.recorder.sent('note', n, undefined)
  }
  collectionsOf(tell)
  expect(collectionsOf(tell)).toBe(0)
  // An object for each is noticed.
  expect(collectionsOf((n) => (kept[0] = { n, type: 'note', subscription: 'one' }))).toBeGreaterThan(0)
})

test('with `telemetry: false` an SDK hears nothing, and nothing is added to events', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url, { telemetry: false })
  expect(await publishAndDeliver(bus, database)).toEqual([{}, {}, {}])
  expect(sdk.spans).toEqual([])
  expect(await sdk.instruments()).toEqual([])
})

test('spans and metrics can be had without each other', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const measuring = testBus(database.url, { telemetry: { spans: false } })
  expect(await publishAndDeliver(measuring, database)).toEqual([{}, {}, {}])
  expect(sdk.spans).toEqual([])
  expect((await sdk.measured('bossbus.delivered'))[0]?.count).toBe(3)

  const other = await createTestDatabase()
  await publishAndDeliver(testBus(other.url, { telemetry: { metrics: false } }), other)
  expect((await sdk.measured('bossbus.delivered'))[0]?.count).toBe(3)
  expect(sdk.spans.map(({ name }) => name)).toContain('process note')
})

test('an SDK that is registered after the bus has started hears of what comes then', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let handledCount = 0
  bus.subscribe({
    name: 'one',
    events: ['note'],
    handler: () => {
      handledCount += 1
    },
  })
  await bus.start()
  await bus.tryPublish(note('before'))
  await until('the first is handled', () => handledCount === 1)
  const sdk = registerSdk()
  await bus.tryPublish(note('after'))
  const [published, handled] = await sdk.named('publish note', 'process note')
  expect(handled?.parentSpanContext?.spanId).toBe(published?.spanContext().spanId)
  await until('it is counted', async () => (await sdk.measured('bossbus.delivered'))[0]?.count === 1)

  // Another one takes its place.
  unregisterSdk()
  const next = registerSdk()
  await bus.tryPublish(note('later'))
  await next.named('publish note', 'process note')
  await until('it is counted', async () => (await next.measured('bossbus.delivered'))[0]?.count === 1)
  expect(sdk.spans.filter(({ name }) => name === 'process note').length).toBe(1)
})

test('a trace that is not sampled is not sampled in handlers either', async () => {
  const sdk = registerSdk({ sampler: new AlwaysOffSampler() })
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const metadata = (await publishAndDeliver(bus, database)) as { traceparent?: string }[]
  expect(
    metadata.every(({ traceparent }) => /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/.test(traceparent ?? '')),
  ).toBe(true)
  expect(sdk.spans).toEqual([])
  // Measured they are all the same.
  expect((await sdk.measured('bossbus.delivered'))[0]?.count).toBe(3)
})

const broken = (): never => {
  throw new Error('the SDK is broken')
}
const brokenExporter: SpanExporter = { export: broken, shutdown: async () => {} }
const brokenSampler: Sampler = { shouldSample: broken, toString: () => 'broken' }
const brokenPropagator: TextMapPropagator = { inject: broken, extract: broken, fields: broken }
const brokenContext: ContextManager = {
  active: () => ROOT_CONTEXT,
  with: broken,
  bind: (_: Context, target) => target,
  enable() {
    return this
  },
  disable() {
    return this
  },
}

test.each<[string, SdkOptions]>([
  ['exporter', { processors: [new SimpleSpanProcessor({ exporter: brokenExporter })] }],
  [
    'span processor',
    {
      processors: [{ onStart: broken, onEnd: broken, forceFlush: async () => {}, shutdown: async () => {} }],
    },
  ],
  ['sampler', { sampler: brokenSampler }],
  ['propagator', { propagator: brokenPropagator }],
  ['context manager', { contextManager: brokenContext }],
])('a broken %s does no harm to publishing and delivery', async (_, options) => {
  registerSdk(options)
  const database = await createTestDatabase()
  expect((await publishAndDeliver(testBus(database.url), database)).length).toBe(3)
})

test('providers that throw do no harm to publishing and delivery', async () => {
  onTestFinished(unregisterSdk)
  // pg-boss asks for a tracer of its own.
  const sound = new SdkTracerProvider()
  trace.setGlobalTracerProvider({
    getTracer: (name) => (name === 'bossbus' ? broken() : sound.getTracer(name)),
  })
  metrics.setGlobalMeterProvider({ getMeter: broken })
  const database = await createTestDatabase()
  expect(await publishAndDeliver(testBus(database.url), database)).toEqual([{}, {}, {}])
})

test('spans and instruments that throw do no harm to publishing and delivery', async () => {
  onTestFinished(unregisterSdk)
  /** Whatever it is asked for throws when it is used. */
  const brokenObject = new Proxy({}, { get: () => broken })
  const tracers = { getTracer: () => ({ startSpan: () => brokenObject }) } as unknown as TracerProvider
  trace.setGlobalTracerProvider(tracers)
  metrics.setGlobalMeterProvider({
    getMeter: () => new Proxy({}, { get: () => () => brokenObject }) as never,
  })
  const database = await createTestDatabase()
  expect((await publishAndDeliver(testBus(database.url), database)).length).toBe(3)
})

test.each<[unknown, string]>([
  ['on', 'Expected `telemetry` to be false or like { spans, createSpans, metrics }, got "on"'],
  [null, 'Expected `telemetry` to be false or like { spans, createSpans, metrics }, got null'],
  [[true], 'Unknown option `0` in `telemetry`'],
  [{ spans: 'yes' }, 'Expected `telemetry.spans` to be true or false, got "yes"'],
  [{ createSpans: 1 }, 'Expected `telemetry.createSpans` to be true or false, got 1'],
  [{ metrics: {} }, 'Expected `telemetry.metrics` to be true or false, got a value of type object'],
  [{ span: false }, 'Unknown option `span` in `telemetry`. Did you mean `spans`?'],
  [{ traces: false }, 'Unknown option `traces` in `telemetry`'],
])('the option telemetry refuses %j', (telemetry, message) => {
  const create = () =>
    createBus({
      database: 'postgres://localhost',
      events: paymentEvents,
      source: 'payment-service',
      telemetry: telemetry as never,
    })
  expect(create).toThrow(message)
  expect(create).toThrow(expect.objectContaining({ code: 'BUS_INVALID_OPTION' }))
})
