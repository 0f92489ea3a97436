import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseJson, parseJsonExactly } from '../../../src/events/json/parse-json.ts'
import { anyJson } from '../../support/arbitrary.ts'
import { roomFor } from '../../support/slowness.ts'
import { cpuMsOf } from '../../foundation/cpu-time.ts'

describe('a JSON text', () => {
  test('gives the keys that are in it, whatever was parsed before', () => {
    const keys = ['\\', '"', '\n', '\b', '\u0001', '\\n', '\nX', 'a\\n', 'a\nX', '__proto__', '']
    for (const before of keys) {
      for (const after of keys) {
        parseJson(JSON.stringify({ k: 1, [before]: null }))
        JSON.parse(JSON.stringify({ k: 1, [before]: null }))
        expect(Object.keys(parseJson(JSON.stringify({ k: 1, [after]: null })) as object)).toEqual([
          'k',
          after,
        ])
      }
    }
  })

  test('gives the value that it was made from, with or without blanks', () => {
    fc.assert(
      fc.property(anyJson, fc.constantFrom(undefined, 1, '\t'), (value, space) => {
        // A key that has to be escaped, so that it is read here.
        const text = JSON.stringify({ '"': value }, null, space)
        expect(JSON.stringify(parseJson(text), null, space)).toBe(text)
      }),
      { numRuns: 500 },
    )
  })

  test.each(['{"\\"": {"__proto__": {"polluted": true}}}', '{"\\n": 1, "__proto__": {"polluted": true}}'])(
    'pollutes no prototype: %s',
    (text) => {
      const parsed = parseJson(text) as Record<string, unknown>
      expect(JSON.stringify(parsed)).toBe(JSON.stringify(JSON.parse(text)))
      expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
      expect(Object.getPrototypeOf(parsed)).toBe(Object.prototype)
    },
  )

  test('that is none is an error, as of JSON.parse', () => {
    for (const text of ['', '{', '{"\\"":', '{"\\"": x}', '{"\\"', '["', '{"\\"": [1', '{"\\"": 1'])
      expect(() => parseJson(text)).toThrow(SyntaxError)
  })

  test('of a megabyte is read in less than 100 ms of processor time, also with escaped keys', () => {
    const lines = JSON.stringify({ text: 'a\n"b"\\'.repeat(150_000) })
    expect(cpuMsOf(() => parseJson(lines))).toBeLessThan(roomFor(100))
    const keys = JSON.stringify(
      Object.fromEntries(Array.from({ length: 30_000 }, (_, i) => [`k"${i}`, [i, 'x']])),
    )
    expect(cpuMsOf(() => parseJson(keys))).toBeLessThan(roomFor(300))
    const deep = `{"\\"": ${'['.repeat(2000)}${']'.repeat(2000)}}`
    expect(cpuMsOf(() => parseJson(deep))).toBeLessThan(roomFor(100))
  })
})

describe('numbers that JavaScript cannot hold', () => {
  test.each([
    ['9007199254740993', '9007199254740993'],
    ['-9007199254740993', '-9007199254740993'],
    ['123456789012345678901234567890', '123456789012345678901234567890'],
    ['0.1234567890123456789', '0.1234567890123456789'],
    [`1${'0'.repeat(400)}`, `1${'0'.repeat(400)}`],
    ['1e400', '1e400'],
    ['1e-400', '1e-400'],
    ['9007199254740992', 9007199254740992],
    ['100000000000000000000000', 1e23],
    ['0.10000000000000000000', 0.1],
    ['1234567.50', 1234567.5],
    ['-0.0000000000000000000', -0],
    ['1.5E+3', 1500],
    ['12', 12],
  ])('are given as texts, and others as numbers: %s', (text, value) => {
    expect(parseJsonExactly(text)).toEqual(value)
    expect(parseJsonExactly(`{"a": [${text}, "${text}", null, true]}`)).toEqual({
      a: [value, text, null, true],
    })
  })

  test('are made by the function that is given', () => {
    expect(parseJsonExactly('[9007199254740993, 1]', (digits) => BigInt(digits))).toEqual([
      9007199254740993n,
      1,
    ])
  })

  test('every other value is as parseJson gives it', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        const text = JSON.stringify([value, { pad: '0'.repeat(20) }])
        expect(parseJsonExactly(text)).toEqual(parseJson(text))
      }),
      { numRuns: 300 },
    )
  })

  test('of two hundred thousand digits are read in less than 100 ms of processor time', () => {
    const zeros = '0'.repeat(200_000)
    for (const number of [`0.1${zeros}1`, `1${zeros}`, `0.${zeros}1`, `1${zeros}1`])
      expect(cpuMsOf(() => parseJsonExactly(`[${number}]`))).toBeLessThan(roomFor(100))
  })
})
