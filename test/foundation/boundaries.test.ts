import { randomUUID } from 'node:crypto'
import { describe, expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import {
  createBus,
  defineEvents,
  limits,
  RetryAfterError,
  type Bus,
  type EventCatalogue,
} from '../../src/index.ts'
import { recordingLogger } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'
import { encodeAll, encodeNote } from '../events/json/encode.ts'
import { refusalOf } from './refusal.ts'

type Try = (size: number) => unknown

/** How to go as far as a limit, and beyond it; and the error there. */
interface Boundary {
  readonly code: string
  readonly at: Try
}

const field =
  (name: string): Try =>
  async (length) =>
    encodeNote({ [name]: 'x'.repeat(length) })

const noteEvents: EventCatalogue = defineEvents({ note: { schema: z.unknown() } })

function openBus(options: object = {}): Bus {
  return createBus({
    database: 'postgres://localhost:1/none',
    events: noteEvents,
    source: 'tests',
    logger: recordingLogger(),
    ...options,
  })
}

const subscription = (options: object): object => ({
  name: 's',
  events: ['**'],
  handler: () => {},
  ...options,
})

const subscribe =
  (option: string): Try =>
  (value) =>
    openBus().subscribe(subscription({ [option]: value }) as never)

/** An option of an option of the bus. */
const inside =
  (outer: string, inner: string, beside: object = {}): Try =>
  (value) =>
    openBus({ [outer]: { ...beside, [inner]: value } })

/** There is no database, which is found out after the options were checked. */
const runCanary: Try = async (timeoutMs) =>
  openBus()
    .canary({ timeoutMs })
    .catch((error: unknown) => {
      if ((error as { code?: string }).code !== 'BUS_DATABASE_UNAVAILABLE') throw error
    })

const retry =
  (option: string): Try =>
  (value) =>
    openBus().subscribe(
      subscription({
        retry: { ...(option === 'delaySeconds' ? { maxDelaySeconds: 604_800 } : {}), [option]: value },
      }) as never,
    )

const define =
  (options: (size: number) => object): Try =>
  (size) =>
    defineEvents({ note: { schema: z.unknown(), ...options(size) } })

const names = (size: number): string[] => Array.from({ length: size }, (_, i) => `n${i}`)

const boundaries: Readonly<Record<string, readonly Boundary[]>> = {
  keyLength: ['tenantId', 'eventId', 'idempotencyKey', 'correlationId', 'orderingKey'].map((name) => ({
    code: 'BUS_INVALID_EVENT',
    at: field(name),
  })),
  subjectLength: [{ code: 'BUS_INVALID_EVENT', at: field('subject') }],
  availableInSeconds: [
    {
      code: 'BUS_INVALID_EVENT',
      at: async (seconds) => encodeNote({ availableIn: { seconds } }),
    },
  ],
  metadataBytes: [
    {
      code: 'BUS_INVALID_EVENT',
      at: async (size) => encodeNote({ metadata: { a: 'x'.repeat(size - '{"a":""}'.length) } }),
    },
  ],
  metadataEntryCount: [
    {
      code: 'BUS_INVALID_EVENT',
      at: async (size) => encodeNote({ metadata: Object.fromEntries(names(size).map((name) => [name, ''])) }),
    },
  ],
  payloadBytes: [
    { code: 'BUS_INVALID_OPTION', at: (value) => openBus({ maxPayloadBytes: value }) },
    {
      code: 'BUS_INVALID_OPTION',
      at: async (size) => {
        openBus({ maxPayloadBytes: size })
        await encodeNote(
          { payload: 'x'.repeat(Math.max(0, size - 2)) },
          { maxPayloadBytes: Math.max(2, size) },
        )
      },
    },
  ],
  payloadDepth: [
    {
      code: 'BUS_PAYLOAD_NOT_JSON',
      at: async (levels) => {
        let payload: unknown = 1
        for (let level = 0; level < levels; level += 1) payload = level % 2 === 0 ? [payload] : { payload }
        await encodeNote({ payload })
      },
    },
  ],
  callEventCount: [
    {
      code: 'BUS_INVALID_BATCH',
      at: async (size) =>
        encodeAll(Array.from({ length: size }, () => ({ type: 'note', tenantId: 'acme', payload: 1 }))),
    },
  ],
  callBytes: [
    {
      code: 'BUS_PAYLOAD_TOO_LARGE',
      at: async (size) => {
        const part = Math.floor(size / 8)
        const texts = Array.from({ length: 8 }, (_, i) => 'x'.repeat(part - 2 + (i === 0 ? size % 8 : 0)))
        const events = texts.map((payload) => ({ type: 'note', tenantId: 'acme', payload }))
        await encodeAll(events, { maxPayloadBytes: 16_777_216 })
      },
    },
  ],
  typeLength: [
    {
      code: 'BUS_INVALID_OPTION',
      at: (size) => defineEvents({ ['x'.repeat(size)]: { schema: z.unknown() } }),
    },
  ],
  sourceLength: [
    { code: 'BUS_INVALID_OPTION', at: (size) => openBus({ source: 'x'.repeat(size) }) },
    { code: 'BUS_INVALID_OPTION', at: define((size) => ({ sources: ['x'.repeat(size)] })) },
  ],
  sourceCount: [{ code: 'BUS_INVALID_OPTION', at: define((size) => ({ sources: names(size) })) }],
  schemaVersion: [{ code: 'BUS_INVALID_OPTION', at: define((version) => ({ version })) }],
  redactPathCount: [{ code: 'BUS_INVALID_OPTION', at: define((size) => ({ redact: names(size) })) }],
  redactPathLength: [{ code: 'BUS_INVALID_OPTION', at: define((size) => ({ redact: ['x'.repeat(size)] })) }],
  subscriptionCount: [
    {
      code: 'BUS_INVALID_OPTION',
      at: (size) => {
        const bus = openBus()
        for (const name of names(size)) bus.subscribe(subscription({ name }) as never)
      },
    },
  ],
  busPatternCount: [
    {
      code: 'BUS_INVALID_OPTION',
      at: (size) => {
        const bus = openBus()
        for (let left = size; left > 0; left -= 100) {
          const events = names(Math.min(100, left)).map((name) => `${name}.*`)
          bus.subscribe(subscription({ name: `s${left}`, events }) as never)
        }
      },
    },
  ],
  subscriptionNameLength: [
    {
      code: 'BUS_INVALID_OPTION',
      at: (size) => openBus().subscribe(subscription({ name: 'x'.repeat(size) }) as never),
    },
  ],
  patternCount: [
    {
      code: 'BUS_INVALID_PATTERN',
      at: (size) =>
        openBus().subscribe(subscription({ events: names(size).map((name) => `${name}.*`) }) as never),
    },
  ],
  patternLength: [
    {
      code: 'BUS_INVALID_PATTERN',
      at: (size) => openBus().subscribe(subscription({ events: [`${'x'.repeat(size - 2)}.*`] }) as never),
    },
  ],
  whereLength: [
    {
      code: 'BUS_INVALID_WHERE',
      at: (size) => openBus().subscribe(subscription({ where: '$.a == 1'.padEnd(size) }) as never),
    },
  ],
  concurrency: [{ code: 'BUS_INVALID_OPTION', at: subscribe('concurrency') }],
  batchSize: [{ code: 'BUS_INVALID_OPTION', at: subscribe('batchSize') }],
  timeoutSeconds: [{ code: 'BUS_INVALID_OPTION', at: subscribe('timeoutSeconds') }],
  heartbeatSeconds: [{ code: 'BUS_INVALID_OPTION', at: subscribe('heartbeatSeconds') }],
  lagLimitSeconds: [{ code: 'BUS_INVALID_OPTION', at: subscribe('lagLimitSeconds') }],
  'health.loopLimitSeconds': [{ code: 'BUS_INVALID_OPTION', at: inside('health', 'loopLimitSeconds') }],
  'health.transactionLimitSeconds': [
    { code: 'BUS_INVALID_OPTION', at: inside('health', 'transactionLimitSeconds') },
  ],
  'canary.everySeconds': [{ code: 'BUS_INVALID_OPTION', at: inside('canary', 'everySeconds') }],
  'metrics.tenants': [{ code: 'BUS_INVALID_OPTION', at: inside('metrics', 'tenants') }],
  canaryTimeoutMs: [{ code: 'BUS_INVALID_OPTION', at: runCanary }],
  'admission.maxOutboxDepth': [{ code: 'BUS_INVALID_OPTION', at: inside('admission', 'maxOutboxDepth') }],
  'admission.maxLagSeconds': [{ code: 'BUS_INVALID_OPTION', at: inside('admission', 'maxLagSeconds') }],
  'admission.maxDelayMs': [
    {
      code: 'BUS_INVALID_OPTION',
      at: inside('admission', 'maxDelayMs', { maxOutboxDepth: 1, action: 'delay' }),
    },
  ],
  'retry.maxAttempts': [{ code: 'BUS_INVALID_OPTION', at: retry('maxAttempts') }],
  'retry.delaySeconds': [{ code: 'BUS_INVALID_OPTION', at: retry('delaySeconds') }],
  'retry.maxDelaySeconds': [{ code: 'BUS_INVALID_OPTION', at: retry('maxDelaySeconds') }],
  retryDelayCount: [
    {
      code: 'BUS_INVALID_OPTION',
      at: (count) =>
        openBus().subscribe(
          subscription({ retry: { delays: Array.from({ length: count }, () => 604_800) } }) as never,
        ),
    },
  ],
  retentionDays: [{ code: 'BUS_INVALID_OPTION', at: (days) => openBus({ retention: { logDays: days } }) }],
  retryAfterSeconds: [{ code: 'BUS_INVALID_OPTION', at: (seconds) => new RetryAfterError(seconds) }],
  graceMs: [{ code: 'BUS_INVALID_OPTION', at: async (graceMs) => openBus().stop({ graceMs }) }],
}

/** Those that need a database have tests of their own. */
const elsewhere = [
  'filterTypeCount',
  'letterIdCount',
  'listLimit',
  'lookupLength',
  'operationRate',
  'overrideSeconds',
  'payloadFilterLength',
  'probeCount',
  'queryLimit',
  'readLimit',
  'replayIdCount',
  'stateIdCount',
  'storedPayloadBytes',
  'traceLimit',
]

test('every limit is tried at its boundary', () => {
  expect([...Object.keys(boundaries), ...elsewhere].toSorted()).toEqual(Object.keys(limits).toSorted())
})

describe.each(Object.entries(boundaries))('%s', (name, tried) => {
  const limit = limits[name as keyof typeof limits]
  const [min, max] = typeof limit === 'number' ? [undefined, limit] : [limit.min, limit.max]

  test('is as far as one may go, and one more is refused with its error', async () => {
    for (const { code, at } of tried) {
      await at(max)
      expect([name, (await refusalOf(async () => at(max + 1))).code]).toEqual([name, code])
    }
  })

  test.runIf(min !== undefined)('has a least value, and one less is refused', async () => {
    for (const { code, at } of tried) {
      // The delay may not be longer than the longest delay.
      if (name !== 'retry.maxDelaySeconds') await at(min ?? 0)
      expect([name, (await refusalOf(async () => at((min ?? 0) - 1))).code]).toEqual([name, code])
    }
  })
})

test('those of a filter are as far as one may go, and one more is refused with its error', async () => {
  const { url } = await createTestDatabase()
  const bus = openBus({ database: url })
  onTestFinished(async () => bus.stop())
  for (const list of [bus.deadLetters.list, bus.blockedKeys.list, bus.events.find]) {
    for (const limit of [limits.listLimit.min, limits.listLimit.max])
      expect(await list({ limit })).toEqual([])
    for (const limit of [limits.listLimit.min - 1, limits.listLimit.max + 1])
      expect(await refusalOf(async () => list({ limit }))).toMatchObject({ code: 'BUS_INVALID_OPTION' })
  }
  const trace = async (limit: number) => bus.events.trace('c1', { limit })
  for (const limit of [limits.traceLimit.min, limits.traceLimit.max]) expect(await trace(limit)).toEqual([])
  for (const limit of [limits.traceLimit.min - 1, limits.traceLimit.max + 1])
    expect(await refusalOf(async () => trace(limit))).toMatchObject({ code: 'BUS_INVALID_OPTION' })
  const { active } = bus.queries
  for (const limit of [limits.queryLimit.min, limits.queryLimit.max])
    expect(await active({ limit })).toEqual([])
  for (const limit of [limits.queryLimit.min - 1, limits.queryLimit.max + 1])
    expect(await refusalOf(async () => active({ limit }))).toMatchObject({ code: 'BUS_INVALID_OPTION' })
  for (const readLimit of [limits.readLimit.min, limits.readLimit.max])
    expect(await bus.events.search({ readLimit })).toMatchObject({ events: [] })
  for (const readLimit of [limits.readLimit.min - 1, limits.readLimit.max + 1])
    expect(await refusalOf(async () => bus.events.search({ readLimit }))).toMatchObject({
      code: 'BUS_INVALID_OPTION',
    })
  expect(await bus.lookup('x'.repeat(limits.lookupLength))).toMatchObject({ matches: [] })
  expect(await refusalOf(async () => bus.lookup('x'.repeat(limits.lookupLength + 1)))).toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
  const someIds = (count: number): string[] => Array.from({ length: count }, () => randomUUID())
  expect(await bus.events.states(someIds(limits.stateIdCount))).toEqual([])
  expect(await refusalOf(async () => bus.events.states(someIds(limits.stateIdCount + 1)))).toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
  // With the quotes, braces and key of {"a":"…"}.
  const partOf = (length: number) => ({ type: 'note' as const, payload: { a: 'x'.repeat(length - 8) } })
  expect(await bus.events.find(partOf(limits.payloadFilterLength))).toEqual([])
  expect(await refusalOf(async () => bus.events.find(partOf(limits.payloadFilterLength + 1)))).toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
  const redrive = async (more: object, count = 1) =>
    bus.deadLetters.redrive(
      { subscription: 'none', ids: Array.from({ length: count }, () => randomUUID()) },
      { by: 'ana', dryRun: true, ...more },
    )
  const accepted = { code: 'BUS_SUBSCRIPTION_NOT_FOUND' }
  const refused = { code: 'BUS_INVALID_OPTION' }
  expect(await refusalOf(async () => redrive({}, limits.letterIdCount))).toMatchObject(accepted)
  expect(await refusalOf(async () => redrive({}, limits.letterIdCount + 1))).toMatchObject(refused)
  for (const [name, { min, max }] of [
    ['probe', limits.probeCount],
    ['rate', { min: 1, max: limits.operationRate }],
  ] as const) {
    for (const value of [min, max])
      expect(await refusalOf(async () => redrive({ [name]: value }))).toMatchObject(accepted)
    for (const value of [min - 1, max + 1])
      expect(await refusalOf(async () => redrive({ [name]: value }))).toMatchObject(refused)
  }
  expect(await bus.events.find({ type: names(limits.filterTypeCount) })).toEqual([])
  expect(
    await refusalOf(async () => bus.events.find({ type: names(limits.filterTypeCount + 1) })),
  ).toMatchObject({ code: 'BUS_INVALID_OPTION' })
})
