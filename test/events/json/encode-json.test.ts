import { runInNewContext } from 'node:vm'
import { describe, expect, test } from 'vitest'
import { encodeJson } from '../../../src/events/json/encode-json.ts'
import { roomFor } from '../../support/slowness.ts'
import { cpuMsOf } from '../../foundation/cpu-time.ts'
import { refusalOf } from '../../foundation/refusal.ts'

const encode = (value: unknown, maxBytes = Number.POSITIVE_INFINITY): string =>
  encodeJson(value, 'payload', maxBytes)

async function reasonAgainst(value: unknown): Promise<string> {
  const error = await refusalOf(() => encode(value))
  expect(error).toMatchObject({ code: 'BUS_PAYLOAD_NOT_JSON', name: 'InvalidEventError', retryable: false })
  return error.message
}

describe('what JSON holds exactly', () => {
  test.each([
    [null],
    [true],
    [0],
    [-1.5e300],
    [5e-324],
    [Number.MAX_SAFE_INTEGER],
    [''],
    ['ünï ☃ 😀 \u2028 \u007f \\ "'],
    [[]],
    [{}],
    [{ a: [{ b: null }, [[1]]], 'a.b': 1, '': 2 }],
    [JSON.parse('{"__proto__": {"polluted": true}, "constructor": 1, "toString": "x"}') as unknown],
  ])('comes back as it was: %j', (value) => {
    expect(JSON.parse(encode(value))).toStrictEqual(value)
  })

  test('keeps a `__proto__` key as a key and pollutes nothing', () => {
    const text = encode(JSON.parse('{"__proto__": {"polluted": true}}'))
    expect(text).toBe('{"__proto__":{"polluted":true}}')
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined()
  })

  test('leaves out properties that are undefined or named by a symbol, as JSON does', () => {
    expect(encode({ a: undefined, b: 1, [Symbol('c')]: 2 })).toBe('{"b":1}')
  })

  test('takes instances of plain classes, objects without a prototype and frozen ones', () => {
    class Money {
      readonly cents = 5
      get euros(): number {
        return this.cents / 100
      }
    }
    expect(encode(new Money())).toBe('{"cents":5}')
    expect(encode(Object.assign(Object.create(null) as object, { a: 1 }))).toBe('{"a":1}')
    expect(encode(Object.freeze([Object.freeze({ a: 1 })]))).toBe('[{"a":1}]')
  })

  test('takes objects and arrays of another realm', () => {
    expect(encode(runInNewContext('({ a: [1, { b: null }] })'))).toBe('{"a":[1,{"b":null}]}')
  })

  test('takes one object in several places', () => {
    const address = { city: 'Delft' }
    expect(encode({ from: address, to: address, all: [address, address] })).toBe(
      '{"from":{"city":"Delft"},"to":{"city":"Delft"},"all":[{"city":"Delft"},{"city":"Delft"}]}',
    )
  })

  test('takes a proxy of a plain object', () => {
    expect(encode(new Proxy({ a: [1] }, {}))).toBe('{"a":[1]}')
  })
})

describe('what JSON would change or drop', () => {
  test.each<[string, unknown, string]>([
    ['a BigInt', 10n, 'is a bigint'],
    ['NaN', Number.NaN, 'is NaN'],
    ['Infinity', Number.POSITIVE_INFINITY, 'is Infinity'],
    ['minus Infinity', Number.NEGATIVE_INFINITY, 'is -Infinity'],
    ['a symbol', Symbol('x'), 'is a symbol'],
    ['a function', () => 1, 'is a function'],
    ['a class', URL, 'is a function'],
    ['a Date', new Date(), 'is a Date'],
    ['an invalid Date', new Date(Number.NaN), 'is a Date'],
    ['a Map', new Map([['a', 1]]), 'is a Map'],
    ['a Set', new Set([1]), 'is a Set'],
    ['a WeakMap', new WeakMap(), 'is a WeakMap'],
    ['a RegExp', /x/, 'is a RegExp'],
    ['an Error', new TypeError('x'), 'is a TypeError'],
    ['a Promise', Promise.resolve(1), 'is a Promise'],
    ['a Buffer', Buffer.from('x'), 'is a Buffer'],
    ['a typed array', new Float64Array(2), 'is a Float64Array'],
    ['an ArrayBuffer', new ArrayBuffer(2), 'is an ArrayBuffer'],
    ['a URL', new URL('https://example.org'), 'is a URL'],
    ['URLSearchParams', new URLSearchParams('a=1'), 'is a URLSearchParams'],
    ['a generator', (function* () {})(), 'is a Generator'],
    ['a boxed text', Object('x'), 'is a String'],
    ['a boxed number', Object(Number.NaN), 'is a Number'],
    ['a boxed BigInt', Object(1n), 'is a BigInt'],
    ['an object with toJSON', { toJSON: () => 'other' }, 'is an Object'],
    ['an array with toJSON', Object.assign([1], { toJSON: () => 'other' }), 'is an Array'],
    ['a Map of another realm', runInNewContext('new Map([[1, 2]])'), 'is a Map'],
    ['a Date of another realm', runInNewContext('new Date()'), 'is a Date'],
  ])('refuses %s, on its own and inside', async (_what, value, reason) => {
    expect(await reasonAgainst(value)).toContain(`Expected \`payload\` to be JSON, but it ${reason}`)
    expect(await reasonAgainst({ lines: [{ ok: 1 }, { value }] })).toContain(
      `Expected \`payload.lines.1.value\` to be JSON, but it ${reason}`,
    )
  })

  test('refuses undefined on its own and in arrays, holes included', async () => {
    expect(await reasonAgainst(undefined)).toBe(
      'Expected `payload` to be JSON, but it is undefined, which JSON cannot hold',
    )
    expect(await reasonAgainst({ a: [1, undefined] })).toContain('`payload.a.1`')
    const sparse = [1]
    sparse[2] = 3
    expect(await reasonAgainst(sparse)).toContain('`payload.1`')
    const enormous: unknown[] = []
    enormous.length = 4_000_000_000
    expect(await reasonAgainst(enormous)).toContain('`payload.0`')
  })

  test('refuses cycles of any length', async () => {
    const self: Record<string, unknown> = {}
    self['self'] = self
    expect(await reasonAgainst(self)).toContain(
      '`payload.self` to be JSON, but it refers to an object that contains it',
    )
    const array: unknown[] = []
    array.push([[array]])
    expect(await reasonAgainst(array)).toContain('`payload.0.0.0`')
  })
})

describe('what jsonb refuses', () => {
  test.each(['\u0000', 'a\u0000b', '\ud800', '\udc00x', `${'x'.repeat(1000)}\ud83d`])(
    'refuses %j in texts and in keys',
    async (text) => {
      expect(await reasonAgainst({ a: text })).toContain('Expected `payload.a` to be JSON, but it contains')
      expect(await reasonAgainst({ a: { [text]: 1 } })).toContain(
        'Expected `payload.a` to be JSON, but it contains',
      )
      expect(await reasonAgainst({ a: { [text]: undefined } })).toContain('which PostgreSQL cannot store')
    },
  )

  test('takes whole surrogate pairs', () => {
    expect(encode('😀')).toBe('"😀"')
  })
})

describe('what cannot be read', () => {
  const secret = 'the value itself'

  test('refuses a getter that throws, with the place and no words of its own', async () => {
    const value = {
      order: {
        get total(): number {
          throw new TypeError(secret)
        },
      },
    }
    const error = await refusalOf(() => encode(value))
    expect(error).toMatchObject({
      code: 'BUS_PAYLOAD_NOT_JSON',
      message: 'Expected `payload.order` to be JSON, but reading it failed',
    })
    expect(error.cause).toMatchObject({
      name: 'TypeError',
      message: expect.not.stringContaining(secret) as string,
    })
  })

  test.each(['ownKeys', 'get', 'getPrototypeOf', 'getOwnPropertyDescriptor'] as const)(
    'refuses a proxy whose %s trap throws anything at all',
    async (trap) => {
      for (const thrown of [new Error(secret), null, undefined, secret, Symbol('x')]) {
        const proxy = new Proxy(
          { a: 1 },
          {
            [trap]: () => {
              throw thrown
            },
          },
        )
        expect(await reasonAgainst({ proxy })).toContain('reading it failed')
      }
    },
  )

  test('refuses a revoked proxy', async () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    expect(await reasonAgainst(proxy)).toContain('reading it failed')
  })

  test('refuses a proxy that turns into something else while it is read', async () => {
    let reads = 0
    const shifty = new Proxy(
      {},
      {
        get: (_target, key) => {
          reads += 1
          return key === 'toJSON' && reads > 1 ? () => undefined : undefined
        },
      },
    )
    expect(await reasonAgainst(shifty)).toContain('reading it failed')
  })
})

describe('size and depth', () => {
  function nest(levels: number, wrap: (inner: unknown) => unknown): unknown {
    let value: unknown = 1
    for (let i = 0; i < levels; i += 1) value = wrap(value)
    return value
  }

  test.each([
    ['arrays', (inner: unknown) => [inner]],
    ['objects', (inner: unknown) => ({ inner })],
  ])('takes 512 levels of %s, refuses 513 and 10,000', async (_what, wrap) => {
    expect(encode(nest(512, wrap))).toContain('1')
    expect(await reasonAgainst(nest(513, wrap))).toContain('is nested deeper than 512 levels')
    const message = await reasonAgainst(nest(10_000, wrap))
    expect(message).toContain('is nested deeper than 512 levels')
    expect(message.length).toBeLessThan(300)
  })

  test('takes exactly as many UTF-8 bytes as allowed', async () => {
    for (const value of [
      'é'.repeat(49),
      '☃'.repeat(32) + 'xx',
      '😀'.repeat(24) + 'xx',
      '"'.repeat(49),
      [[1, 22], {}],
    ]) {
      const size = Buffer.byteLength(JSON.stringify(value))
      expect(encode(value, size)).toBe(JSON.stringify(value))
      expect(await refusalOf(() => encode(value, size - 1))).toMatchObject({
        code: 'BUS_PAYLOAD_TOO_LARGE',
        message: expect.stringContaining(`at most ${size - 1} bytes as JSON, got `) as string,
      })
    }
  })

  test('counts never more than the text takes', () => {
    const values = [
      [],
      {},
      '',
      0,
      null,
      true,
      [[], {}, [0]],
      { a: {}, b: [], '': '' },
      [null, false, 'é"\n', -1.25e-7],
    ]
    for (const value of values)
      expect(encode(value, Buffer.byteLength(JSON.stringify(value)))).toBe(JSON.stringify(value))
  })

  test('gives up early on shared objects that stand for an endless text', async () => {
    let value: unknown = ['x']
    for (let i = 0; i < 200; i += 1) value = [value, value]
    const attempt = (): string => encode(value, 262_144)
    expect(await refusalOf(attempt)).toMatchObject({ code: 'BUS_PAYLOAD_TOO_LARGE' })
    expect(cpuMsOf(() => expect(attempt).toThrow('got more'))).toBeLessThan(roomFor(1000))
  })

  test('encodes a million numbers in less than a second', () => {
    const numbers = Array.from({ length: 1_000_000 }, (_, i) => i)
    expect(cpuMsOf(() => encode(numbers, 16_777_216))).toBeLessThan(roomFor(1000))
    expect(encode(numbers, 16_777_216)).toBe(JSON.stringify(numbers))
  })

  test('bounds what it shows of long and unprintable keys', async () => {
    const message = await reasonAgainst({
      ['k'.repeat(10_000)]: { b: { c: { d: { e: { f: { g: { h: [[1n]] } } } } } } },
    })
    expect(message).toContain(`payload.${'k'.repeat(40)}….b.c.d.e.f.g.h.…`)
    expect(message.length).toBeLessThan(200)
  })
})
