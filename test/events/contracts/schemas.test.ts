import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents, type EventDefinition, type InvalidEventError } from '../../../src/index.ts'
import { recordingLogger } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { encodeNote } from '../json/encode.ts'
import { refusalOf } from '../../foundation/refusal.ts'

async function encodeWith(schema: EventDefinition['schema'], payload: unknown): Promise<unknown> {
  return (await encodeNote({ payload }, { catalogue: defineEvents({ note: { schema } }) }))['payload']
}

async function findingsOf(schema: EventDefinition['schema'], payload: unknown): Promise<InvalidEventError> {
  const error = await refusalOf(async () => encodeWith(schema, payload))
  expect(error).toMatchObject({ code: 'BUS_INVALID_EVENT', name: 'InvalidEventError' })
  return error as InvalidEventError
}

describe.each<[string, EventDefinition['schema']]>([
  ['zod', z.object({ id: z.string().min(2), lines: z.array(z.object({ qty: z.number() })) })],
  [
    'valibot',
    v.object({ id: v.pipe(v.string(), v.minLength(2)), lines: v.array(v.object({ qty: v.number() })) }),
  ],
  ['arktype', type({ id: 'string >= 2', lines: type({ qty: 'number' }).array() })],
])('a %s schema', (_vendor, schema) => {
  test('lets a fitting payload through as it is', async () => {
    const payload = { id: 'p1', lines: [{ qty: 1 }, { qty: 2 }] }
    expect(await encodeWith(schema, payload)).toEqual(payload)
  })

  test('refuses the rest with paths and reasons', async () => {
    const error = await findingsOf(schema, { id: 'p', lines: [{ qty: 1 }, { qty: 'two' }] })
    expect(error.issues.map(({ path }) => path)).toEqual(['id', 'lines.1.qty'])
    expect(error.issues.map(({ message }) => message)).toEqual([
      expect.stringMatching(/.+/),
      expect.stringMatching(/.+/),
    ])
    expect(error.message).toMatch(/^The payload of `note` does not fit its schema: id: .+; lines\.1\.qty: .+/)
    expect(error.message).not.toContain('two')
  })

  test.each([undefined, null, 'text', [], 5])('refuses %j', async (payload) => {
    expect((await findingsOf(schema, payload)).issues.length).toBeGreaterThan(0)
  })
})

describe('what a schema returns', () => {
  test('is what is encoded: defaults, coercions and transforms of each library', async () => {
    expect(
      await encodeWith(
        z.object({
          at: z.date().transform((date) => date.toISOString()),
          n: z.coerce.number(),
          tag: z.string().default('none'),
        }),
        { at: new Date(0), n: '5', extra: 'dropped' },
      ),
    ).toEqual({ at: '1970-01-01T00:00:00.000Z', n: 5, tag: 'none' })
    expect(
      await encodeWith(
        v.object({ n: v.pipe(v.string(), v.transform(Number)), tag: v.optional(v.string(), 'none') }),
        { n: '5' },
      ),
    ).toEqual({ n: 5, tag: 'none' })
    expect(await encodeWith(type({ n: 'string.numeric.parse', tag: "string = 'none'" }), { n: '5' })).toEqual(
      {
        n: 5,
        tag: 'none',
      },
    )
  })

  test('has to be JSON, whatever the schema says', async () => {
    const error = await refusalOf(async () =>
      encodeWith(z.object({ at: z.coerce.date() }), { at: '2026-11-23' }),
    )
    expect(error).toMatchObject({
      code: 'BUS_PAYLOAD_NOT_JSON',
      message: expect.stringContaining('Expected `payload.at` to be JSON, but it is a Date') as string,
    })
  })

  test('is stored, and delivered to handlers', async () => {
    const { url, db, rows } = await createTestDatabase()
    const events = defineEvents({
      'payment.paid': {
        schema: z.object({ cents: z.coerce.number(), currency: z.string().default('EUR') }),
      },
    })
    const bus = createBus({ database: url, events, source: 'tests', logger: recordingLogger() })
    const delivered: unknown[] = []
    bus.subscribe({
      name: 'seen',
      events: ['payment.paid'],
      handler: (event) => void delivered.push(event.payload),
    })
    try {
      await bus.start()
      await db.transaction(async (tx) => {
        await bus.publish(tx, { type: 'payment.paid', tenantId: 'acme', payload: { cents: '250' } })
      })
      await until('the handler ran', () => delivered.length === 1)
      expect(delivered).toEqual([{ cents: 250, currency: 'EUR' }])
      expect(await rows('select payload from bus.events')).toEqual([
        { payload: { cents: 250, currency: 'EUR' } },
      ])
    } finally {
      await bus.stop({ graceMs: 1000 })
    }
  })
})

describe('an asynchronous schema', () => {
  const taken = z.string().refine(async (id) => Promise.resolve(id !== 'p7'), 'is taken')

  test('is awaited', async () => {
    expect(await encodeWith(z.object({ id: taken }), { id: 'free' })).toEqual({ id: 'free' })
    const error = await findingsOf(z.object({ id: taken }), { id: 'p7' })
    expect(error.issues).toEqual([{ path: 'id', message: 'is taken' }])
  })

  test('is awaited with valibot', async () => {
    const schema = v.pipeAsync(
      v.string(),
      v.checkAsync(async (id) => Promise.resolve(id !== 'p7'), 'is taken'),
    )
    expect(await encodeWith(schema, 'free')).toBe('free')
    expect((await findingsOf(schema, 'p7')).issues).toEqual([{ path: '', message: 'is taken' }])
  })
})

describe('a schema that fails', () => {
  const standard = (validate: (value: unknown) => unknown): EventDefinition['schema'] => ({
    '~standard': { version: 1, vendor: 'broken', validate: validate as never },
  })

  test.each<[string, EventDefinition['schema']]>([
    ['throws', z.string().transform((text) => JSON.parse(text) as unknown)],
    ['rejects', standard(async (value) => Promise.reject(new SyntaxError(`cannot read ${String(value)}`)))],
    [
      'throws null',
      standard(() => {
        throw null
      }),
    ],
    ['gives nothing', standard(() => undefined)],
    ['gives null', standard(() => null)],
    ['gives issues that are none', standard(() => ({ issues: [null] }))],
    ['gives issues without a message', standard(() => ({ issues: [{ path: ['a'] }] }))],
    ['gives issues that are no list', standard(() => ({ issues: 'wrong' }))],
  ])('because it %s gives a typed error that quotes nothing', async (_what, schema) => {
    const error = await findingsOf(schema, 'secret payload')
    expect(error.message).toBe('The schema of `note` failed while validating')
    expect(error.cause).toBeInstanceOf(Error)
    expect(`${(error.cause as Error).message} ${(error.cause as Error).stack}`).not.toContain('secret')
  })

  test('keeps the name of what was thrown and where', async () => {
    function readTotal(): never {
      throw new RangeError('secret payload')
    }
    const { cause } = await findingsOf(z.string().transform(readTotal), 'x')
    expect(cause).toMatchObject({ name: 'RangeError' })
    expect((cause as Error).stack).toMatch(/^RangeError: omitted.*\n +at .*readTotal.*schemas\.test\.ts/)
  })

  test('because a payload is nested too deeply for it gives a typed error', async () => {
    interface Nested {
      inner?: Nested | undefined
    }
    const nested: z.ZodType<Nested> = z.lazy(() => z.object({ inner: nested.optional() }))
    let payload: Nested = {}
    for (let i = 0; i < 10_000; i += 1) payload = { inner: payload }
    const error = await refusalOf(async () => encodeWith(nested, payload))
    expect(['BUS_INVALID_EVENT', 'BUS_PAYLOAD_NOT_JSON']).toContain(error.code)
  })

  test('is bounded in what it may say', async () => {
    const long = standard(() => ({
      issues: Array.from({ length: 5000 }, (_, i) => ({
        message: `wrong ${'x'.repeat(5000)}`,
        path: ['k'.repeat(5000), i, { key: Symbol('s') }, ...Array.from({ length: 100 }, () => 'deep')],
      })),
    }))
    const error = await findingsOf(long, {})
    expect(error.issues).toHaveLength(20)
    expect(error.message.length).toBeLessThan(1100)
    for (const { path, message } of error.issues) {
      expect(path.length).toBeLessThan(150)
      expect(message.length).toBeLessThanOrEqual(300)
    }
  })
})
