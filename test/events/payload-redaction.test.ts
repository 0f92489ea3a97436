import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvents } from '../../src/index.ts'
import { placeholderIn, redactPayload, restoreRedacted } from '../../src/events/payload-redaction.ts'

const schema = z.unknown()
const shown = (redact: readonly string[], payload: unknown): unknown =>
  redactPayload(defineEvents({ note: { schema, redact } }), 'note', payload)

describe('a payload that is shown', () => {
  test.each<[string, readonly string[], unknown, unknown]>([
    [
      'a name',
      ['card.number'],
      { card: { number: '4', kind: 'x' } },
      { card: { number: '[redacted]', kind: 'x' } },
    ],
    ['a whole object', ['card'], { card: { number: '4' }, a: 1 }, { card: '[redacted]', a: 1 }],
    [
      'every item',
      ['items.*.email'],
      { items: [{ email: 'a' }, { email: 'b', n: 1 }] },
      { items: [{ email: '[redacted]' }, { email: '[redacted]', n: 1 }] },
    ],
    [
      'every property',
      ['by.*.email'],
      { by: { x: { email: 'a' }, y: {} } },
      { by: { x: { email: '[redacted]' }, y: {} } },
    ],
    ['all of a level', ['*'], { a: 1, b: [2] }, { a: '[redacted]', b: '[redacted]' }],
    ['one item', ['items.1'], { items: ['a', 'b'] }, { items: ['a', '[redacted]'] }],
    [
      'what became a list',
      ['customer.email'],
      { customer: [{ email: 'a' }, [{ email: 'b' }]] },
      { customer: [{ email: '[redacted]' }, [{ email: '[redacted]' }]] },
    ],
    ['a payload that is a list', ['email'], [{ email: 'a' }], [{ email: '[redacted]' }]],
    [
      'paths that cross',
      ['a.*.x', 'a.b.y'],
      { a: { b: { x: 1, y: 2, z: 3 } } },
      { a: { b: { x: '[redacted]', y: '[redacted]', z: 3 } } },
    ],
    ['a path and a longer one', ['a', 'a.b'], { a: { b: 1 } }, { a: '[redacted]' }],
    [
      'names with dots and stars',
      ['a\\.b', '\\*.c', 'd\\\\'],
      { 'a.b': 1, '*': { c: 2 }, 'd\\': 3, x: { c: 4 } },
      { 'a.b': '[redacted]', '*': { c: '[redacted]' }, 'd\\': '[redacted]', x: { c: 4 } },
    ],
    [
      'falsy values, but not null',
      ['a', 'b', 'c', 'd'],
      { a: 0, b: '', c: false, d: null },
      { a: '[redacted]', b: '[redacted]', c: '[redacted]', d: null },
    ],
    [
      'nothing where a path leads nowhere',
      ['x.y.z', 'a.b.c', 'n.b'],
      { a: { b: 'text' }, n: null },
      { a: { b: 'text' }, n: null },
    ],
    ['nothing of a text', ['a', '*'], 'text', 'text'],
  ])('hides %s', (_what, redact, payload, expected) => {
    const before = structuredClone(payload)
    expect(shown(redact, payload)).toEqual(expected)
    expect(payload).toEqual(before)
  })

  test('is what was given where nothing is hidden, and is never changed', () => {
    const payload = Object.freeze({ a: Object.freeze({ b: 1 }), c: Object.freeze({ d: 2 }) })
    expect(shown(['x'], payload)).toBe(payload)
    const redacted = shown(['a.b'], payload) as typeof payload
    expect(redacted).toEqual({ a: { b: '[redacted]' }, c: { d: 2 } })
    expect(redacted.c).toBe(payload.c)
  })

  test('bears hostile names', () => {
    const payload = JSON.parse(
      '{"__proto__": {"secret": 1, "open": 2}, "constructor": {"name": 3}}',
    ) as object
    const redacted = shown(['__proto__.secret', 'constructor.name', 'toString.length'], payload) as object
    expect(JSON.stringify(redacted)).toBe(
      '{"__proto__":{"secret":"[redacted]","open":2},"constructor":{"name":"[redacted]"}}',
    )
    expect(Object.getPrototypeOf(redacted)).toBe(Object.prototype)
    expect(({} as Record<string, unknown>)['secret']).toBeUndefined()
  })

  test('bears the deepest payload, and withholds what is deeper', () => {
    const deep = (levels: number): unknown => JSON.parse('[{"a":'.repeat(levels) + '1' + '}]'.repeat(levels))
    const path = Array.from({ length: 256 }, () => 'a').join('.')
    expect(JSON.stringify(shown([path], deep(256)))).toContain('"[redacted]"')
    const lists = JSON.parse('['.repeat(20_000) + '{"a":1}' + ']'.repeat(20_000)) as unknown
    expect(JSON.stringify(shown(['a'], lists))).toContain('"[redacted]"')
  })

  test('is withheld whole for a type that the catalogue does not know, whatever its name', () => {
    const catalogue = defineEvents({ note: { schema } })
    for (const type of ['other', '__proto__', 'constructor', 'toString'])
      expect(redactPayload(catalogue, type, { a: 1 })).toBe('[redacted]')
    expect(redactPayload(catalogue, 'other', null)).toBe(null)
    expect(redactPayload(catalogue, 'note', { a: 1 })).toEqual({ a: 1 })
  })
})

describe('redact', () => {
  test.each<[string, unknown]>([
    ['no list', 'card.number'],
    ['no text', [5]],
    ['an empty path', ['']],
    ['a leading dot', ['.a']],
    ['a trailing dot', ['a.']],
    ['two dots', ['a..b']],
    ['a lone backslash', ['a\\']],
    ['an unknown escape', ['a\\b']],
    ['a path that is too long', ['a'.repeat(1025)]],
    ['too many paths', Array.from({ length: 201 }, (_, i) => `a${i}`)],
  ])('refuses %s', (_what, redact) => {
    expect(() => defineEvents({ note: { schema, redact: redact as string[] } })).toThrow(
      expect.objectContaining({
        code: 'BUS_INVALID_OPTION',
        message: expect.stringMatching(/`redact` of `note`/) as string,
      }) as Error,
    )
  })

  test('takes names of any kind, and a copy of the list', () => {
    const redact = ['a b.ü.*', 'x']
    const catalogue = defineEvents({ note: { schema, redact } })
    redact.push('y')
    expect(redactPayload(catalogue, 'note', { x: 1, y: 2 })).toEqual({ x: '[redacted]', y: 2 })
  })
})

describe('a payload that was edited as it was shown', () => {
  const edit = (redact: readonly string[], stored: unknown, change: (payload: never) => unknown) => {
    const definition = { schema, redact }
    const edited = change(structuredClone(shown(redact, stored)) as never)
    const restored = restoreRedacted(definition, edited, stored)
    return [restored, placeholderIn(definition, restored, stored)]
  }

  test.each<[string, readonly string[], unknown, (payload: never) => unknown, unknown]>([
    [
      'a name',
      ['card.number'],
      { card: { number: '4' }, a: 1 },
      (p: object) => ({ ...p, a: 2 }),
      { card: { number: '4' }, a: 2 },
    ],
    [
      'a whole object',
      ['card'],
      { card: { number: '4' }, a: 1 },
      (p: object) => ({ ...p, a: 2 }),
      { card: { number: '4' }, a: 2 },
    ],
    ['another type', ['n'], { n: 7, list: [1] }, (p: object) => ({ ...p, list: [] }), { n: 7, list: [] }],
    [
      'items by their position',
      ['items.*.email'],
      {
        items: [
          { email: 'a', n: 1 },
          { email: 'b', n: 2 },
        ],
      },
      () => ({
        items: [
          { email: '[redacted]', n: 1 },
          { email: '[redacted]', n: 3 },
        ],
      }),
      {
        items: [
          { email: 'a', n: 1 },
          { email: 'b', n: 3 },
        ],
      },
    ],
    [
      'what became a list',
      ['customer.email'],
      { customer: [{ email: 'a' }] },
      (p) => p,
      { customer: [{ email: 'a' }] },
    ],
    [
      'a new value in its place',
      ['card.number'],
      { card: { number: '4' } },
      () => ({ card: { number: '5' } }),
      { card: { number: '5' } },
    ],
    [
      'one that was taken out',
      ['card.number'],
      { card: { number: '4' } },
      () => ({ card: {} }),
      { card: {} },
    ],
    [
      'this text elsewhere',
      ['card.number'],
      { card: { number: '4' } },
      () => ({ note: '[redacted]' }),
      { note: '[redacted]' },
    ],
    ['this text as the value', ['secret'], { secret: '[redacted]' }, (p) => p, { secret: '[redacted]' }],
    [
      'a name of the prototype',
      ['__proto__.a'],
      JSON.parse('{"__proto__": {"a": 1}}'),
      (p) => p,
      JSON.parse('{"__proto__": {"a": 1}}'),
    ],
  ])('keeps its hidden values: %s', (_, redact, stored, change, expected) => {
    expect(edit(redact, stored, change)).toEqual([expected, undefined])
  })

  test.each<[string, readonly string[], unknown, unknown, string]>([
    ['was not there', ['card.number'], { card: {} }, { card: { number: '[redacted]' } }, 'card.number'],
    ['was null', ['card'], { card: null }, { card: '[redacted]' }, 'card'],
    [
      'is in a list of another length',
      ['items.*.email'],
      { items: [{ email: 'a' }, { email: 'b' }] },
      { items: [{ email: '[redacted]' }] },
      'items.0.email',
    ],
    [
      'is in a list that was an object',
      ['by.*.email'],
      { by: { x: { email: 'a' } } },
      { by: [{ email: '[redacted]' }] },
      'by.0.email',
    ],
    [
      'is inside another one',
      ['items.*.email'],
      { items: [[{ email: 'a' }]] },
      { items: [[{ email: '[redacted]' }, {}]] },
      'items.0.0.email',
    ],
  ])('says where a value %s', (_, redact, stored, edited, path) => {
    expect(edit(redact, stored, () => edited)).toEqual([edited, path])
  })
})
