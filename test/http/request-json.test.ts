import { expect, test } from 'vitest'
import { parseRequestJson } from '../../src/http/request-json.ts'
import { cpuMsOf } from '../foundation/cpu-time.ts'
import { roomFor } from '../support/slowness.ts'

test.each([
  '{"a":[1,"x",null,true,{"b":-1.5e3}]}',
  ' {"k" : "\\u0041"} ',
  '"text"',
  '9007199254740991',
  '[]',
  '{"constructor":1,"prototype":2}',
])('what is JSON arrives as it was sent: %s', (text) => {
  expect(parseRequestJson(text, 'it')).toEqual(JSON.parse(text))
})

const levels = (count: number): string => `${'['.repeat(count)}${']'.repeat(count)}`

test.each([
  ['', 'to be JSON'],
  ['{', 'to be JSON'],
  ["{'a':1}", 'to be JSON'],
  ['{"a":1}x', 'to be JSON'],
  ['\ufeff{}', 'to be JSON'],
  ['NaN', 'to be JSON'],
  ['{"a":{"__proto__":1}}', '__proto__'],
  [String.raw`{"\u005f_proto__":1}`, '__proto__'],
  ['[[{"constructor":{"prototype":{}}}]]', 'constructor.prototype'],
  ['[9007199254740993]', 'numbers'],
  ['{"a":1e400}', 'numbers'],
  ['{"a":0.12345678901234567890}', 'numbers'],
])('what would not arrive so, or could do harm, is refused without quoting it: %s', (text, part) => {
  expect(() => parseRequestJson(text, 'it')).toThrow(
    expect.objectContaining({
      code: 'BUS_HTTP_BAD_REQUEST',
      statusCode: 400,
      message: expect.stringMatching(new RegExp(`^Expected it .*${part}`)) as string,
    }) as Error,
  )
})

test('as many levels as a payload and its body may have are accepted, and no more', () => {
  expect(parseRequestJson(levels(520), 'it')).toEqual(JSON.parse(levels(520)))
  for (const count of [521, 200_000])
    expect(() => parseRequestJson(levels(count), 'it')).toThrow('Expected it to have at most 520 levels')
})

test('a megabyte is read in less than 300 ms of processor time, whatever it is', () => {
  const texts = [
    levels(500_000),
    `[${'1234567890123456,'.repeat(60_000)}1]`,
    `{${Array.from({ length: 50_000 }, (_, n) => `"k\\n${n}":1`).join()}}`,
    `"${'\\u0041'.repeat(160_000)}"`,
  ]
  for (const text of texts)
    expect(
      cpuMsOf(() => {
        try {
          parseRequestJson(text, 'it')
        } catch {
          // Refused.
        }
      }),
    ).toBeLessThan(roomFor(300))
})
