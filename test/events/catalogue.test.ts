import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvents, type EventCatalogue } from '../../src/index.ts'
import { refusalOf } from '../foundation/refusal.ts'
import { upcastPayload } from '../../src/events/upcast.ts'

const schema = z.object({ id: z.string() })

/** Past the types, as a caller without them would. */
const defineAnything = (catalogue: unknown): unknown => defineEvents(catalogue as EventCatalogue)

async function definitionRefusal(definition: unknown): Promise<string> {
  const error = await refusalOf(() => defineAnything({ 'payment.paid': definition }))
  expect(error).toMatchObject({ code: 'BUS_INVALID_OPTION', name: 'ConfigurationError', retryable: false })
  return error.message
}

describe('names of event types', () => {
  test.each([
    'note',
    'payment.paid',
    'a.b.c.d',
    'Payment_2.paid-out',
    '0',
    `${'a'.repeat(127)}.${'b'.repeat(127)}`,
    'order:created',
    'orders/create',
    'ObjectCreated:Put',
    'io.k8s.x/v1',
    'user@example.com',
    'Order Completed',
    'zażółć.gęślą',
    '注文.作成',
    '👩\u200d🚀.launched',
    "it's",
    'a.#',
    '🚀'.repeat(255),
  ])('takes %s', (name) => {
    expect(Object.keys(defineEvents({ [name]: { schema } }))).toEqual([name])
  })

  test.each([
    ...[
      '',
      '.',
      'a.',
      '.a',
      'a..b',
      'a.*',
      '**',
      'a*b',
      's3:ObjectCreated:*',
      'a\n',
      'a\u0000',
      'a\tb',
      ' a',
      'a ',
      '\u00a0a',
    ],
    ...['a\u2028b', 'a\ud83d', 'a\ufffe', 'a\u0085', 'a'.repeat(256), '🚀'.repeat(256)],
  ])('refuses %j', async (name) => {
    const error = await refusalOf(() => defineAnything({ [name]: { schema } }))
    expect(error).toMatchObject({
      code: 'BUS_INVALID_OPTION',
      message: expect.stringContaining('Expected an event type like `payment.paid`') as string,
    })
  })

  test('keeps a refusal of a very long name short', async () => {
    const error = await refusalOf(() => defineAnything({ ['a'.repeat(100_000)]: { schema } }))
    expect(error.message.length).toBeLessThan(300)
  })

  test('takes names that objects inherit, as names of their own', () => {
    const events = defineEvents({ constructor: { schema }, ['__proto__']: { schema, version: 2 } })
    expect(Object.keys(events)).toEqual(['constructor', '__proto__'])
    expect(Object.getPrototypeOf(events)).toBe(Object.prototype)
  })
})

describe('definitions', () => {
  test('gives a frozen copy that later changes do not reach', () => {
    const definition: { schema: typeof schema; version: number } = { schema, version: 1 }
    const given = { 'payment.paid': definition }
    const events = defineEvents(given)
    definition.version = 7
    expect(events['payment.paid'].version).toBe(1)
    expect(events['payment.paid'].schema).toBe(schema)
    expect(Object.isFrozen(events) && Object.isFrozen(events['payment.paid'])).toBe(true)
    expect(Object.isFrozen(given)).toBe(false)
  })

  test.each([null, undefined, 'events', 5, [], [{ schema }]])(
    'refuses the catalogue %j',
    async (catalogue) => {
      expect(await refusalOf(() => defineAnything(catalogue))).toMatchObject({
        code: 'BUS_INVALID_OPTION',
        message: expect.stringContaining('Expected the events by name') as string,
      })
    },
  )

  test.each([null, undefined, 'schema', 5])('refuses the definition %j', async (definition) => {
    expect(await definitionRefusal(definition)).toBe(
      'Expected `payment.paid` to be an object with a `schema`',
    )
  })

  test('refuses an unknown key and names the one that was meant', async () => {
    expect(await definitionRefusal({ shema: schema })).toBe(
      'Unknown option `shema` in event `payment.paid`. Did you mean `schema`?',
    )
    expect(await definitionRefusal({ schema, Source: ['a'] })).toContain('Did you mean `sources`?')
    expect(await definitionRefusal({ schema, versions: 2 })).toContain('Did you mean `version`?')
  })

  test('refuses an unknown key that is near to none and lists the known ones', async () => {
    expect(await definitionRefusal({ schema, description: 'x' })).toBe(
      'Unknown option `description` in event `payment.paid`. Known are: schema, sources, version, upcast, redact',
    )
    expect(await definitionRefusal({ schema, ['s'.repeat(5000)]: 'x' })).toMatch(/^.{0,200}Known are: /)
  })

  test.each([
    [undefined],
    [null],
    [{}],
    ['string'],
    [{ type: 'object', properties: {} }],
    [{ parse: () => true }],
    [{ '~standard': null }],
    [{ '~standard': { version: 1, vendor: 'x' } }],
    [{ '~standard': { validate: 'yes' } }],
  ])('refuses %j, which is no Standard Schema', async (noSchema) => {
    expect(await definitionRefusal({ schema: noSchema })).toContain('to be a Standard Schema')
  })

  test('takes a schema that is a function with a `~standard` property', () => {
    const callable = Object.assign(() => true, {
      '~standard': { version: 1 as const, vendor: 'mine', validate: (value: unknown) => ({ value }) },
    })
    expect(defineEvents({ note: { schema: callable } }).note.schema).toBe(callable)
  })

  test.each([[[]], ['billing'], [[1]], [['']], [['billing', null]], [null], [{}]])(
    'refuses the sources %j',
    async (sources) => {
      expect(await definitionRefusal({ schema, sources })).toContain('Expected `sources` of `payment.paid`')
    },
  )

  test.each([0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 32_768, '2', null, Object.create(null)])(
    'refuses the version %s',
    async (version: unknown) => {
      expect(await definitionRefusal({ schema, version })).toContain('integer from 1 to 32767')
    },
  )

  test('takes the lowest and the highest version, and explicit undefined as left out', () => {
    expect(defineEvents({ a: { schema, version: 1 }, b: { schema, version: 32_767 } }).b.version).toBe(32_767)
    expect(() =>
      defineEvents({ a: { schema, version: undefined, sources: undefined, upcast: undefined } }),
    ).not.toThrow()
  })
})

describe('upcast chains', () => {
  const step = (payload: unknown): unknown => payload

  test.each([
    ['the version itself', 2, { 2: step }],
    ['a version above', 2, { 3: step }],
    ['version 0', 2, { 0: step }],
    ['a fraction', 2, { 1.5: step }],
    ['a word', 2, { first: step }],
    ['a leading zero', 2, { '01': step }],
    ['no function', 2, { 1: 'x' }],
    ['a step with no version to lead to', 1, { 1: step }],
  ])('refuses %s', async (_what, version, upcast) => {
    expect(await definitionRefusal({ schema, version, upcast })).toContain(
      'to hold functions for versions 1 to',
    )
  })

  test.each([null, 5, 'ab', [], [step], new Map([[1, step]])])(
    'refuses %j as a chain',
    async (upcast: unknown) => {
      expect(await definitionRefusal({ schema, version: 2, upcast })).toContain(
        'Expected `upcast` of `payment.paid` to hold functions by version',
      )
    },
  )

  test('refuses a chain with a gap, which would hand half-converted payloads to handlers', async () => {
    expect(await definitionRefusal({ schema, version: 4, upcast: { 1: step, 3: step } })).toBe(
      'Expected `upcast` of `payment.paid` to contain a function for version 2: the step to version 3 is missing',
    )
    expect(await definitionRefusal({ schema, version: 3, upcast: { 1: step } })).toContain(
      'for version 2: the step to version 3 is missing',
    )
  })

  test('takes a whole chain, and one whose oldest versions are stored no more', () => {
    expect(() => defineEvents({ a: { schema, version: 3, upcast: { 1: step, 2: step } } })).not.toThrow()
    expect(() => defineEvents({ a: { schema, version: 5, upcast: { 4: step, 3: step } } })).not.toThrow()
    expect(() => defineEvents({ a: { schema, version: 5 } })).not.toThrow()
  })

  test('leads a payload through each step from its version to the newest', () => {
    const { a } = defineEvents({
      a: {
        schema,
        version: 3,
        upcast: {
          1: (v1: { name: string }) => ({ names: [v1.name] }),
          2: (v2: { names: string[] }) => ({ id: v2.names.join() }),
        },
      },
    })
    expect(upcastPayload('a', a, 1, { name: 'x' })).toEqual({ id: 'x' })
    expect(upcastPayload('a', a, 2, { names: ['x', 'y'] })).toEqual({ id: 'x,y' })
    expect(upcastPayload('a', a, 3, { id: 'x' })).toEqual({ id: 'x' })
    expect(upcastPayload('a', undefined, 4, { id: 'unknown type' })).toEqual({ id: 'unknown type' })
  })

  test('leads on over many versions, from any of them', () => {
    const last = 400
    const chain = Object.fromEntries(
      Array.from({ length: last - 1 }, (_, i) => [
        i + 1,
        ({ sum }: { sum: number }) => ({ sum: sum + i + 1 }),
      ]),
    )
    const { long } = defineEvents({ long: { schema, version: last, upcast: chain } })
    const sumFrom = (version: number): number => ((last - version) * (last - 1 + version)) / 2
    for (const version of [1, 2, 200, 399, 400])
      expect(upcastPayload('long', long, version, { sum: 0 })).toEqual({ sum: sumFrom(version) })
  })

  test('refuses what was stored under a newer version than the code knows', async () => {
    const { a } = defineEvents({ a: { schema, version: 2 } })
    expect(await refusalOf(() => upcastPayload('a', a, 3, {}))).toMatchObject({
      code: 'BUS_EVENT_TOO_NEW',
      retryable: true,
      message: 'The event was published under version 3 of `a`, but this service only knows version 2',
    })
  })

  test('refuses a step that throws or gives a promise or nothing, and shows nothing of what it threw', async () => {
    const { slow, broken, forgetful } = defineEvents({
      forgetful: { schema, version: 2, upcast: { 1: () => undefined } },
      slow: { schema, version: 2, upcast: { 1: async () => Promise.reject(new Error('late')) } },
      broken: {
        schema,
        version: 2,
        upcast: {
          1: () => {
            throw new RangeError('cannot convert canary')
          },
        },
      },
    })
    expect(await refusalOf(() => upcastPayload('slow', slow, 1, {}))).toMatchObject({
      code: 'BUS_UPCAST_FAILED',
      message: 'The upcast of `slow` from version 1 to 2 returned a promise: it must be synchronous',
    })
    expect(await refusalOf(() => upcastPayload('forgetful', forgetful, 1, {}))).toMatchObject({
      code: 'BUS_UPCAST_FAILED',
    })
    const error = await refusalOf(() => upcastPayload('broken', broken, 1, {}))
    expect(error).toMatchObject({
      code: 'BUS_UPCAST_FAILED',
      message: 'The upcast of `broken` from version 1 to 2 threw RangeError',
    })
    expect(inspect(error)).toMatch(/at .*catalogue\.test\.ts/)
    expect(inspect(error)).not.toContain('canary')
  })
})
