import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { EventDefinition } from '../../src/index.ts'
import { redactIssue, redactThrown } from '../../src/foundation/error-redaction.ts'
import { roomFor } from '../support/slowness.ts'
import { cpuMsOf } from './cpu-time.ts'

async function reasonsOf(schema: EventDefinition['schema'], payload: unknown): Promise<string[]> {
  const { issues = [] } = await schema['~standard'].validate(payload)
  return issues.map((issue) => redactIssue(issue, payload))
}

describe('the words of a schema library', () => {
  test.each<[EventDefinition['schema'], unknown, string]>([
    [
      z.object({ n: z.number(), k: z.string() }),
      { n: 'string', k: 'a' },
      'Invalid input: expected number, received string',
    ],
    [
      z.object({ n: z.number(), k: z.string() }),
      { k: 'number' },
      'Invalid input: expected number, received undefined',
    ],
    [
      z.object({ n: z.number(), k: z.string() }),
      { k: 'received' },
      'Invalid input: expected number, received undefined',
    ],
    [
      z.object({ n: z.number(), k: z.string() }),
      { k: 'expected number' },
      'Invalid input: expected number, received undefined',
    ],
    [
      z.object({ n: z.number(), k: z.string() }),
      { k: 'inval' },
      'Invalid input: expected number, received undefined',
    ],
    [
      z.object({ n: z.number(), k: z.string() }),
      { k: 'Undefined' },
      'Invalid input: expected number, received undefined',
    ],
    [
      z.object({ n: z.enum(['open', 'paid']) }),
      { n: 'paid-late' },
      'Invalid option: expected one of "open"|"paid"',
    ],
    [
      z.object({ n: z.string().max(3) }),
      { n: 'characters' },
      'Too big: expected string to have <=3 characters',
    ],
    [v.object({ n: v.number() }), { n: 'number' }, 'Invalid type: Expected number but received …'],
    [type({ n: 'number' }), { n: 'string' }, 'n must be a number (was a string)'],
  ])('stay, whatever the payload has: %#', async (schema, payload, message) => {
    expect(await reasonsOf(schema, payload)).toEqual([message])
  })
})

describe('the reason of a schema', () => {
  test.each<[string, EventDefinition['schema'], unknown, string]>([
    [
      'valibot: a type',
      v.object({ a: v.number() }),
      { a: 'hunter2' },
      'Invalid type: Expected number but received …',
    ],
    ['valibot: a format', v.pipe(v.string(), v.email()), 'hunter2', 'Invalid email: Received …'],
    [
      'valibot: a trimmed text',
      v.pipe(v.string(), v.trim(), v.email()),
      ' hunter2 ',
      'Invalid email: Received …',
    ],
    [
      'valibot: an upper-case text',
      v.pipe(v.string(), v.toUpperCase(), v.email()),
      'hunter2',
      'Invalid email: Received …',
    ],
    [
      'valibot: a choice',
      v.picklist(['x', 'y']),
      'hunter2',
      'Invalid type: Expected ("x" | "y") but received …',
    ],
    [
      'valibot: a short text',
      v.picklist(['x', 'y']),
      'z',
      'Invalid type: Expected ("x" | "y") but received "…"',
    ],
    [
      'valibot: a number',
      v.pipe(v.number(), v.maxValue(3)),
      42,
      'Invalid value: Expected <=3 but received …',
    ],
    [
      'valibot: a length',
      v.pipe(v.string(), v.maxLength(3)),
      'hunter2',
      'Invalid length: Expected <=3 but received 7',
    ],
    [
      'valibot: an object',
      v.object({ a: v.string() }),
      { a: {} },
      'Invalid type: Expected string but received Object',
    ],
    ['arktype: a type', type({ a: 'number' }), { a: 'hunter2' }, 'a must be a number (was a string)'],
    [
      'arktype: a format',
      type({ a: 'string.email' }),
      { a: 'hunter2' },
      'a must be an email address (was …)',
    ],
    [
      'arktype: a union',
      type({ t: "'a'", x: 'string' }).or({ s: "'b'", y: 'number' }),
      { t: 'hunter2', s: 'hunter2' },
      's must be "b" (was "…") or t must be "a" (was "…")',
    ],
    [
      'arktype: two bounds',
      type({ a: 'number < 3 & number % 2' }),
      { a: 12_345 },
      'a (…) must be...\n  ◦ even\n  ◦ less than 3',
    ],
    [
      'arktype: a parser that quotes its input',
      type('string.json.parse'),
      'hunter2',
      `must be a JSON string (SyntaxError: Unexpected token 'h', … is not valid JSON)`,
    ],
    [
      'zod: a message of one’s own that quotes the value',
      z.string().refine(() => false, { error: ({ input }) => `no such user: ${String(input)}` }),
      'hunter2',
      'no such user: …',
    ],
  ])('hides the value and keeps the rest (%s)', async (_what, schema, payload, reason) => {
    expect(await reasonsOf(schema, payload)).toEqual([reason])
  })

  test('is left as it is where it quotes nothing', async () => {
    const schema = z.object({ a: z.number(), b: z.enum(['x', 'y']), c: z.email(), d: z.string().max(3) })
    expect(await reasonsOf(schema, { a: 'x', b: 'z', c: 'string', d: 'four' })).toEqual([
      'Invalid input: expected number, received string',
      'Invalid option: expected one of "x"|"y"',
      'Invalid email address',
      'Too big: expected string to have <=3 characters',
    ])
  })

  test('hides what lies anywhere below the path, and anywhere at all where the path leads nowhere', () => {
    const payload = { a: { b: ['hunter2'] }, c: 'elsewhere' }
    expect(redactIssue({ message: 'not hunter2, elsewhere', path: ['a'] }, payload)).toBe('not …, elsewhere')
    expect(redactIssue({ message: 'not hunter2, elsewhere', path: ['x', { key: 'y' }] }, payload)).toBe(
      'not …, …',
    )
    expect(redactIssue({ message: 'not hunter2, elsewhere' }, payload)).toBe('not …, …')
  })

  test('hides long numbers and short ones that stand alone', () => {
    expect(redactIssue({ message: 'got 7, not 17, 7.5 or a7', path: [] }, 7)).toBe('got …, not 17, 7.5 or a7')
    expect(redactIssue({ message: 'got 1234567 cents' }, { cents: 1_234_567n })).toBe('got … cents')
    expect(redactIssue({ message: 'got -1.5' }, [-1.5])).toBe('got …')
  })

  test('hides values that need escaping in JSON or in patterns', () => {
    expect(redactIssue({ message: 'got "a\\"b\\nc"' }, 'a"b\nc')).toBe('got "…"')
    expect(redactIssue({ message: 'got $&(.*)[' }, '$&(.*)[')).toBe('got …')
  })

  test('is given up where the payload has too many values to look for', () => {
    const payload = Array.from({ length: 20_000 }, (_, i) => `value ${i}`)
    expect(redactIssue({ message: 'got value 7' }, payload)).toBe('refused by the schema')
    expect(redactIssue({ message: 'got value 7' }, payload.slice(0, 1100))).toBe('refused by the schema')
    expect(redactIssue({ message: `got ${'x'.repeat(30_000)}` }, 'short')).toBe('refused by the schema')
  })

  test('survives payloads that contain themselves', () => {
    const payload: Record<string, unknown> = { name: 'hunter2' }
    payload['self'] = payload
    expect(redactIssue({ message: 'got hunter2' }, payload)).toBe('got …')
  })

  test('takes little time on hostile messages', () => {
    const message = `${'"'.repeat(5000)}${"'`".repeat(5000)}`
    const payload = Array.from({ length: 300 }, (_, i) => `'${'"'.repeat(i)}`)
    expect(cpuMsOf(() => redactIssue({ message }, payload))).toBeLessThan(roomFor(1000))
  })
})

describe('what was thrown', () => {
  test('keeps its name and its frames', () => {
    const redacted = redactThrown(new TypeError('hunter2'))
    expect(redacted.name).toBe('TypeError')
    expect(redacted.stack).toMatch(
      /^TypeError: left out, as it may quote the payload\n +at .*error-redaction\.test\.ts/,
    )
  })

  test.each<[string, () => unknown]>([
    [
      'a message over several lines, made like a frame',
      () => new Error('hunter2\n    at hunter2 (x.ts:1:1)'),
    ],
    [
      'a stack that does not hold the message',
      () => Object.assign(new Error('x'), { message: 'hunter2', stack: 'hunter2' }),
    ],
    ['a cause', () => new Error('x', { cause: new Error('hunter2') })],
    ['several errors', () => new AggregateError([new Error('hunter2')], 'hunter2')],
    ['properties', () => Object.assign(new Error('x'), { input: 'hunter2' })],
    ['a text', () => 'hunter2'],
    ['an object', () => ({ message: 'hunter2' })],
    ['null', () => null],
    ['undefined', () => undefined],
    [
      'an error whose getters throw',
      () =>
        Object.defineProperty(new Error('x'), 'message', {
          get: () => {
            throw new Error('hunter2')
          },
        }),
    ],
    ['an error whose name is no text', () => Object.assign(new Error('hunter2'), { name: 5 })],
  ])('loses its words: %s', (_what, make) => {
    const redacted = redactThrown(make())
    expect(redacted).toBeInstanceOf(Error)
    expect(JSON.stringify([redacted.name, redacted.message, redacted.stack, redacted.cause])).not.toContain(
      'hunter2',
    )
  })
})
