import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvents, limits } from '../../src/index.ts'
import { encodeAll, encodeNote } from '../events/json/encode.ts'
import { refusalOf } from './refusal.ts'

const note = { type: 'note', tenantId: 'acme', payload: 'x' }

describe('the size of a payload', () => {
  // The quotes of a JSON text take two of the bytes.
  const fitting: readonly (readonly [string, string])[] = [
    ['one byte a character', 'a'.repeat(262_142)],
    ['two bytes a character', 'é'.repeat(131_071)],
    ['three bytes a character', '☃'.repeat(87_380) + 'aa'],
    ['four bytes a character', '😀'.repeat(65_535) + 'aa'],
    ['escaped to two bytes', '"'.repeat(131_071)],
  ]

  test.each(fitting)('is 256 KiB at most, of %s', async (_what, payload) => {
    expect(Buffer.byteLength(JSON.stringify(payload))).toBe(262_144)
    expect((await encodeNote({ payload }))['payload']).toBe(payload)
    expect(await refusalOf(async () => encodeNote({ payload: `${payload}a` }))).toMatchObject({
      code: 'BUS_PAYLOAD_TOO_LARGE',
      name: 'InvalidEventError',
      message: expect.stringMatching(
        /^Expected `payload` to take at most 262144 bytes as JSON, got /,
      ) as string,
    })
  })

  test('is what maxPayloadBytes says', async () => {
    expect(await encodeNote({ payload: 'abc' }, { maxPayloadBytes: 5 })).toMatchObject({ payload: 'abc' })
    const error = await refusalOf(async () => encodeNote({ payload: 'abcd' }, { maxPayloadBytes: 5 }))
    expect(error).toMatchObject({ code: 'BUS_PAYLOAD_TOO_LARGE' })
    const large = 'a'.repeat(1_000_000)
    expect(await encodeNote({ payload: large }, { maxPayloadBytes: 16_777_216 })).toMatchObject({
      payload: large,
    })
  })

  test('is that of what the schema returns, not of what was given', async () => {
    const catalogue = defineEvents({
      note: { schema: z.object({ text: z.string() }) },
      grown: { schema: z.string().transform((text) => text.repeat(10)) },
    })
    const options = { catalogue, maxPayloadBytes: 20 }
    const stripped = await encodeNote({ payload: { text: 'short', dropped: 'x'.repeat(100) } }, options)
    expect(stripped['payload']).toEqual({ text: 'short' })
    const grown = async (): Promise<unknown> => encodeNote({ type: 'grown', payload: 'abc' }, options)
    expect(await refusalOf(grown)).toMatchObject({ code: 'BUS_PAYLOAD_TOO_LARGE' })
  })
})

describe('text fields', () => {
  const fields = [
    ['tenantId', 255],
    ['eventId', 255],
    ['idempotencyKey', 255],
    ['correlationId', 255],
    ['orderingKey', 255],
    ['subject', 1024],
  ] as const

  test.each(fields)('%s takes 1 to %i characters', async (field, maxLength) => {
    for (const text of [
      'x',
      ' ',
      'x'.repeat(maxLength),
      '☃'.repeat(maxLength),
      "'; drop table bus.events --",
    ]) {
      expect((await encodeNote({ [field]: text }))[field]).toBe(text)
    }
  })

  test.each(fields)(
    '%s refuses what is no text of 1 to %i characters that PostgreSQL can store',
    async (field, max) => {
      for (const value of [
        'x'.repeat(max + 1),
        'a\u0000',
        '\ud800',
        5,
        true,
        {},
        ['x'],
        new Date(),
        Symbol('x'),
      ]) {
        expect(await refusalOf(async () => encodeNote({ [field]: value }))).toMatchObject({
          code: 'BUS_INVALID_EVENT',
          message: expect.stringContaining(
            `Expected \`${field}\` to be a text of 1 to ${max} characters`,
          ) as string,
        })
      }
    },
  )

  test.each(fields.slice(1))('%s may be left out or undefined, not null and not empty', async (field) => {
    expect(await encodeNote({ [field]: undefined })).not.toHaveProperty(field)
    for (const value of [null, '']) {
      expect(await refusalOf(async () => encodeNote({ [field]: value }))).toMatchObject({
        code: 'BUS_INVALID_EVENT',
      })
    }
  })

  test.each([undefined, null, ''])('tenantId is needed: %j', async (tenantId) => {
    expect(await refusalOf(async () => encodeNote({ tenantId }))).toMatchObject({
      code: 'BUS_TENANT_REQUIRED',
      message: 'Expected `tenantId` to name the tenant of the event',
    })
  })

  test('the refusal of a long text shows its length and not the text', async () => {
    const { message } = await refusalOf(async () => encodeNote({ orderingKey: 'secret'.repeat(100) }))
    expect(message).toContain('got 600 characters')
    expect(message).not.toContain('secret')
  })
})

describe('causationId', () => {
  test.each(['0190163d-8694-739b-aea5-966c26f8ad90', '0190163D-8694-739B-AEA5-966C26F8AD90'])(
    'takes %s',
    async (id) => {
      expect(await encodeNote({ causationId: id })).toMatchObject({ causationId: id })
    },
  )

  test.each([
    '',
    'x',
    '0190163d8694739baea5966c26f8ad90',
    '{0190163d-8694-739b-aea5-966c26f8ad90}',
    null,
    5,
    {},
  ])('refuses %j', async (causationId) => {
    expect(await refusalOf(async () => encodeNote({ causationId }))).toMatchObject({
      code: 'BUS_INVALID_EVENT',
      message: expect.stringContaining('Expected `causationId` to be the id of an event (a uuid)') as string,
    })
  })
})

describe('availableAt', () => {
  test.each(['1970-01-01T00:00:00.000Z', '2026-11-23T08:00:00.123Z', '9999-12-31T23:59:59.999Z'])(
    'takes the Date %s',
    async (time) => {
      expect(await encodeNote({ availableAt: new Date(time) })).toMatchObject({ availableAt: time })
    },
  )

  test.each<[unknown]>([
    [new Date('1969-12-31T23:59:59.999Z')],
    [new Date('+010000-01-01T00:00:00.000Z')],
    [new Date(Number.NaN)],
    ['2026-11-23T08:00:00Z'],
    [Date.now()],
    [null],
    [{ getUTCFullYear: () => 2026, toISOString: () => 'x' }],
  ])('refuses %s', async (availableAt) => {
    expect(await refusalOf(async () => encodeNote({ availableAt }))).toMatchObject({
      code: 'BUS_INVALID_EVENT',
      message: 'Expected `availableAt` to be a Date from 1970 to 9999',
    })
  })
})

describe('metadata', () => {
  test('takes text values by name, up to 16 KiB as JSON', async () => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    expect(await encodeNote({ metadata: { traceparent, 'x-ä': '' } })).toMatchObject({
      metadata: { traceparent, 'x-ä': '' },
    })
    expect(await encodeNote({})).toMatchObject({ metadata: {} })
    const whole = { a: '☃'.repeat(5458) + 'xx' }
    expect(Buffer.byteLength(JSON.stringify(whole))).toBe(16_384)
    expect(await encodeNote({ metadata: whole })).toMatchObject({ metadata: whole })
    expect(await refusalOf(async () => encodeNote({ metadata: { a: `${whole.a}x` } }))).toMatchObject({
      code: 'BUS_INVALID_EVENT',
      message: 'Expected `metadata` to take at most 16384 bytes, got 16385',
    })
  })

  test.each<[unknown]>([
    [null],
    ['traceparent'],
    [5],
    [[]],
    [['a']],
    [{ a: 1 }],
    [{ a: null }],
    [{ a: undefined }],
    [{ a: { b: 'c' } }],
    [{ a: ['b'] }],
  ])('refuses %j', async (metadata) => {
    expect(await refusalOf(async () => encodeNote({ metadata }))).toMatchObject({
      code: 'BUS_INVALID_EVENT',
      message: 'Expected `metadata` to be an object of string values',
    })
  })

  test.each<[unknown]>([[new Map([['a', 'b']])], [new Date()], [{ a: '\u0000' }], [{ '\ud800': 'a' }]])(
    'refuses %j, which PostgreSQL or JSON cannot keep',
    async (metadata) => {
      expect(await refusalOf(async () => encodeNote({ metadata }))).toMatchObject({
        code: 'BUS_PAYLOAD_NOT_JSON',
        message: expect.stringContaining('Expected `metadata') as string,
      })
    },
  )
})

describe('an event', () => {
  test.each([null, undefined, 'note', 5, true, [], [note], Symbol('x'), () => note])(
    'is not %s',
    async (event: unknown) => {
      expect(await refusalOf(async () => encodeAll([event]))).toMatchObject({
        code: 'BUS_INVALID_EVENT',
        message: expect.stringContaining(
          'Expected an event like { type, tenantId, payload }, got ',
        ) as string,
      })
    },
  )

  test('has no unknown fields', async () => {
    for (const field of ['tenant', 'source', 'id', 'createdAt', '__proto__', 'x'.repeat(10_000)]) {
      const error = await refusalOf(async () => encodeAll([{ ...note, [field]: undefined }]))
      expect(error).toMatchObject({ code: 'BUS_INVALID_EVENT' })
      expect(error.message).toMatch(
        /^Unknown field ".{1,70}" of an event\. (?:Known are: type, payload, tenantId, |Did you mean `(?:tenantId|eventId)`)/,
      )
    }
  })

  test.each([
    'nothing',
    '',
    'Note',
    'note ',
    'toString',
    '__proto__',
    'constructor',
    undefined,
    null,
    5,
    {},
    ['note'],
  ])('of the type %j is unknown', async (type: unknown) => {
    expect(await refusalOf(async () => encodeNote({ type }))).toMatchObject({
      code: 'BUS_UNKNOWN_EVENT_TYPE',
      message: expect.stringContaining('Expected `type` to be an event of the catalogue, got ') as string,
    })
  })

  test('may be an instance of a class, its fields inherited or its own', async () => {
    class Note {
      readonly tenantId = 'acme'
      get type(): string {
        return 'note'
      }
      get payload(): string {
        return 'from a getter'
      }
    }
    expect(await encodeAll([new Note()])).toMatchObject([
      { type: 'note', tenantId: 'acme', payload: 'from a getter' },
    ])
  })

  test('is read once: what is checked is what is stored', async () => {
    let reads = 0
    const shifty = {
      tenantId: 'acme',
      payload: { units: 1 },
      get type() {
        reads += 1
        return reads === 1 ? 'note' : 'usage.billed'
      },
    }
    expect(await encodeAll([shifty])).toMatchObject([{ type: 'note' }])
    expect(reads).toBe(1)
  })

  test.each([null, undefined, 'text', new Error('secret')])(
    'that throws %s while it is read gives a typed error',
    async (thrown: unknown) => {
      const fail = (): never => {
        throw thrown
      }
      for (const event of [
        Object.defineProperty({ ...note }, 'type', { get: fail, enumerable: true }),
        new Proxy({}, { ownKeys: fail }),
        new Proxy({ ...note }, { get: fail }),
      ]) {
        const error = await refusalOf(async () => encodeAll([event]))
        expect(error).toMatchObject({ code: 'BUS_INVALID_EVENT', message: 'Reading the event failed' })
        expect(JSON.stringify(error.cause)).not.toContain('secret')
      }
    },
  )
})

describe('sources', () => {
  const billed = { type: 'usage.billed', payload: { units: 1 } }

  test('let only those listed publish a type: an adapter cannot emit what is billed', async () => {
    expect(await refusalOf(async () => encodeNote(billed, { source: 'zoom-adapter' }))).toMatchObject({
      code: 'BUS_SOURCE_NOT_ALLOWED',
      message: 'The source `zoom-adapter` may not publish `usage.billed`. Allowed: billing, back-office',
    })
    expect(await encodeNote(billed, { source: 'billing' })).toMatchObject({
      source: 'billing',
      type: 'usage.billed',
    })
    expect(await encodeNote(billed, { source: 'back-office' })).toMatchObject({ source: 'back-office' })
    expect(await encodeNote({}, { source: 'zoom-adapter' })).toMatchObject({
      source: 'zoom-adapter',
      type: 'note',
    })
  })

  test('are compared as a whole', async () => {
    for (const source of ['Billing', 'billing ', 'bill', 'billing2']) {
      expect(await refusalOf(async () => encodeNote(billed, { source }))).toMatchObject({
        code: 'BUS_SOURCE_NOT_ALLOWED',
      })
    }
  })

  test('cannot be gone round by a field of the event', async () => {
    const forged = async (): Promise<unknown> =>
      encodeNote({ ...billed, source: 'billing' }, { source: 'adapter' })
    expect(await refusalOf(forged)).toMatchObject({ code: 'BUS_INVALID_EVENT' })
  })
})

describe('a batch', () => {
  test('has 1 to 10,000 events', async () => {
    expect(limits.callEventCount).toBe(10_000)
    expect(await encodeAll(Array.from({ length: 10_000 }, () => note))).toHaveLength(10_000)
    for (const count of [0, 10_001]) {
      expect(await refusalOf(async () => encodeAll(Array.from({ length: count }, () => note)))).toMatchObject(
        {
          code: 'BUS_INVALID_BATCH',
          message: `Expected an array of 1 to 10000 events, got ${count}`,
        },
      )
    }
  })

  test.each<[unknown, string]>([
    [null, 'null'],
    [undefined, 'undefined'],
    [note, 'a value of type object'],
    ['notes', 'a value of type string'],
    [new Set([note]), 'a value of type object'],
    [{ length: 1, 0: note }, 'a value of type object'],
  ])('is an array, not %j', async (events, got) => {
    expect(await refusalOf(async () => encodeAll(events))).toMatchObject({
      code: 'BUS_INVALID_BATCH',
      message: `Expected an array of 1 to 10000 events, got ${got}`,
    })
  })

  test('names the position of the bad event, whatever is bad about it', async () => {
    const bad: readonly (readonly [unknown, string])[] = [
      [null, 'BUS_INVALID_EVENT'],
      [{ ...note, typo: 1 }, 'BUS_INVALID_EVENT'],
      [{ ...note, type: 'nothing' }, 'BUS_UNKNOWN_EVENT_TYPE'],
      [{ ...note, tenantId: '' }, 'BUS_TENANT_REQUIRED'],
      [{ ...note, type: 'usage.billed' }, 'BUS_SOURCE_NOT_ALLOWED'],
      [{ ...note, payload: 1n }, 'BUS_PAYLOAD_NOT_JSON'],
      [{ ...note, payload: 'x'.repeat(262_143) }, 'BUS_PAYLOAD_TOO_LARGE'],
      [new Proxy({}, { ownKeys: () => [Symbol.iterator, 1] as never }), 'BUS_INVALID_EVENT'],
    ]
    for (const [event, code] of bad) {
      expect(await refusalOf(async () => encodeAll([note, note, event, null]))).toMatchObject({
        code,
        message: expect.stringMatching(/^Event 2: /) as string,
      })
      expect((await refusalOf(async () => encodeAll([event]))).message).not.toMatch(/^Event/)
    }
  })

  test('names the position and keeps the findings of a schema', async () => {
    const catalogue = defineEvents({ note: { schema: z.object({ id: z.string() }) } })
    const events = [
      { ...note, payload: { id: 'a' } },
      { ...note, payload: { id: 1 } },
    ]
    expect(await refusalOf(async () => encodeAll(events, { catalogue }))).toMatchObject({
      message: expect.stringContaining(
        'Event 1: The payload of `note` does not fit its schema: id: ',
      ) as string,
      issues: [{ path: 'id' }],
    })
  })

  test('treats a hole as what it is: no event', async () => {
    const holed = [note, note]
    holed[3] = note
    expect(await refusalOf(async () => encodeAll(holed))).toMatchObject({
      message: expect.stringContaining('Event 2: Expected an event like') as string,
    })
  })

  test('is taken as it was at the call: what the caller does to the array meanwhile changes nothing', async () => {
    const events = [note, { ...note, payload: 'second' }]
    const encoding = encodeAll(events)
    events.length = 0
    expect(await encoding).toMatchObject([{ payload: 'x' }, { payload: 'second' }])
  })

  test('carries 64 MiB at most, counted in bytes', async () => {
    const large = { ...note, payload: '☃'.repeat(5_500_000) }
    const options = { maxPayloadBytes: 16_777_216 }
    expect(await encodeAll([large, large, large, large], options)).toHaveLength(4)
    expect(
      await refusalOf(async () => encodeAll([large, large, large, large, large], options)),
    ).toMatchObject({
      code: 'BUS_PAYLOAD_TOO_LARGE',
      message: expect.stringContaining('publish in several calls') as string,
    })
  })
})
