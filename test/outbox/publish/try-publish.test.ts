import { describe, expect, test } from 'vitest'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { canary, traceOfCanary } from '../../support/canary.ts'
import { createTestDatabase } from '../../support/database.ts'

type Event = Parameters<PaymentBus['tryPublish']>[0]

const note = { type: 'note', tenantId: 'acme', payload: 'x' } as const

const fail = (thrown: unknown) => (): never => {
  throw thrown
}

const notEvents: readonly (readonly [string, unknown])[] = [
  ['null', null],
  ['undefined', undefined],
  ['a text', canary],
  ['a number', 5],
  ['a BigInt', 5n],
  ['a symbol', Symbol(canary)],
  ['a function', () => note],
  ['an empty object', {}],
  ['an array', [note]],
  ['an object without a prototype', Object.create(null)],
  ['a Date', new Date()],
  ['an unknown type', { ...note, type: 'nothing' }],
  ['a type that is a symbol', { ...note, type: Symbol('note') }],
  ['no tenant', { ...note, tenantId: undefined }],
  ['an unknown field', { ...note, body: canary }],
  ['a source that may not', { ...note, type: 'usage.billed', payload: { units: 1 } }],
  ['a payload that does not fit', { ...note, type: 'payment.paid', payload: { paymentId: canary } }],
  ['a payload that is no JSON', { ...note, payload: [canary, 1n] }],
  ['a payload that is too large', { ...note, payload: canary.repeat(20_000) }],
  [
    'a payload whose getter throws',
    { ...note, payload: Object.defineProperty({}, 'a', { get: fail(new Error(canary)), enumerable: true }) },
  ],
  ['a proxy whose keys throw null', new Proxy({}, { ownKeys: fail(null) })],
  ['a proxy whose keys throw undefined', new Proxy({}, { ownKeys: fail(undefined) })],
  ['a proxy whose keys throw a symbol', new Proxy({}, { ownKeys: fail(Symbol(canary)) })],
  [
    'a proxy whose prototype throws',
    new Proxy({ ...note, type: 'nothing' }, { getPrototypeOf: fail(new Error(canary)) }),
  ],
]

describe('tryPublish', () => {
  test('resolves to what publish would, and the event is there', async () => {
    const { url, count } = await createTestDatabase()
    const logger = recordingLogger()
    const bus = testBus(url, { logger })
    const published = await bus.tryPublish({ ...note, eventId: 'e1' })
    expect(published).toEqual({ id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string, duplicate: false })
    expect(await bus.tryPublish({ ...note, eventId: 'e1' })).toEqual({ id: published?.id, duplicate: true })
    expect(await count('select count(*) from bus.events')).toBe(1)
    expect(await bus.health()).toMatchObject({ failedTryPublishCount: 0 })
    expect(logger.lines).toEqual([])
  })

  test('never throws whatever it is given: counted, logged without the payload, nothing written', async () => {
    const { url, count } = await createTestDatabase()
    const logger = recordingLogger()
    const bus = testBus(url, { logger })
    for (const [, given] of notEvents) expect(await bus.tryPublish(given as Event)).toBeUndefined()
    expect(await bus.health()).toMatchObject({ failedTryPublishCount: notEvents.length })
    expect(logger.lines).toHaveLength(notEvents.length)
    for (const { level, message, fields } of logger.lines) {
      expect({ level, message }).toEqual({ level: 'error', message: 'an event could not be published' })
      expect(fields['errorCode']).toMatch(/^BUS_/)
      expect(fields['reason']).toMatch(/\w/)
    }
    expect(JSON.stringify(logger.lines)).not.toMatch(traceOfCanary)
    expect(await count('select count(*) from bus.events')).toBe(0)

    await bus.tryPublish(note)
    expect(await count('select count(*) from bus.events')).toBe(1)
    expect(await bus.health()).toMatchObject({ failedTryPublishCount: notEvents.length })
  })

  // src/bus.ts reads `event.type` again for its log line. With that read guarded, these two join the list above.
  test.each<[string, unknown]>([
    [
      'a type whose getter throws',
      Object.defineProperty({}, 'type', { get: fail(new Error('x')), enumerable: true }),
    ],
    ['a proxy whose every read throws', new Proxy({}, { get: fail(null) })],
  ])('does not reject for %s', async (_what, given) => {
    const bus = testBus('postgres://nobody@127.0.0.1:1/none')
    expect(await bus.tryPublish(given as Event)).toBeUndefined()
  })

  // src/bus.ts calls the logger inside the catch that must not throw.
  test('does not reject when the logger throws', async () => {
    const bus = testBus('postgres://nobody@127.0.0.1:1/none', {
      logger: { ...recordingLogger(), error: fail(new Error('full disk')) },
    })
    expect(await bus.tryPublish(note)).toBeUndefined()
  })

  test('does not throw when the database cannot be reached, and says so', async () => {
    const logger = recordingLogger()
    const bus = testBus('postgres://nobody@127.0.0.1:1/none', { logger })
    expect(await bus.tryPublish({ ...note, payload: canary })).toBeUndefined()
    expect(await bus.health()).toMatchObject({ ok: false, database: 'down', failedTryPublishCount: 1 })
    expect(logger.lines).toMatchObject([
      { level: 'error', fields: { errorCode: 'BUS_DATABASE_UNAVAILABLE', type: 'note' } },
    ])
    expect(JSON.stringify(logger.lines)).not.toMatch(traceOfCanary)
  })

  test('does not throw when the schema is missing, and says so', async () => {
    const { url } = await createTestDatabase({ empty: true })
    const logger = recordingLogger()
    const bus = testBus(url, { logger })
    expect(await bus.tryPublish({ ...note, payload: canary })).toBeUndefined()
    expect(logger.lines).toMatchObject([{ fields: { errorCode: 'BUS_SCHEMA_MISSING' } }])
    expect(JSON.stringify(logger.lines)).not.toMatch(traceOfCanary)
  })

  test('does not throw after stop', async () => {
    const { url } = await createTestDatabase()
    const bus = testBus(url)
    await bus.stop()
    expect(await bus.tryPublish(note)).toBeUndefined()
  })

  test('counts and logs calls that fail at the same time, each once', async () => {
    const { url, count } = await createTestDatabase()
    const logger = recordingLogger()
    const bus = testBus(url, { logger })
    const given = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? note : { ...note, tenantId: '' }))
    const results = await Promise.all(given.map(async (event) => bus.tryPublish(event)))
    expect(results.filter((result) => result === undefined)).toHaveLength(20)
    expect(await bus.health()).toMatchObject({ failedTryPublishCount: 20 })
    expect(logger.lines).toHaveLength(20)
    expect(await count('select count(*) from bus.events')).toBe(20)
  })
})
