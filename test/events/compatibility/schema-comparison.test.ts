import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { EventDefinition } from '../../../src/index.ts'
import { describeSchema } from '../../../src/events/contracts/json-schema.ts'
import { findIncompatibilities } from '../../../src/events/compatibility/schema-comparison.ts'
import type { JsonSchema } from '../../../src/events/contracts/schema-dialect.ts'

type Schema = EventDefinition['schema']

async function incompatibilities(from: Schema, to: Schema): Promise<readonly string[]> {
  const [a, b] = [await describeSchema(from), await describeSchema(to)]
  return findIncompatibilities(a.output ?? true, b.output ?? true).map(
    ({ path, rule, detail }) => `${path} ${rule}: ${detail}`,
  )
}

const base = z.object({ id: z.string(), n: z.number().optional(), kind: z.enum(['a', 'b']) })

describe('a value of one schema may not fit another where', () => {
  test.each<[string, Schema, Schema, readonly string[]]>([
    ['nothing changed', base, base, []],
    ['a property was added that may be missing', base, base.extend({ more: z.string().optional() }), []],
    ['a property is not read any more', base, base.omit({ id: true }), []],
    [
      'a property is required',
      base,
      base.extend({ more: z.string() }),
      ['more required: may be missing, but is required'],
    ],
    [
      'one that could be missing is required',
      base,
      base.required(),
      ['n required: may be missing, but is required'],
    ],
    [
      'a type is another',
      base,
      base.extend({ id: z.number() }),
      ['id type: is a string, only a number fits'],
    ],
    [
      'a type is narrower',
      z.object({ a: z.number() }),
      z.object({ a: z.int() }),
      ['a type: is a number, only an integer fits'],
    ],
    ['a type is wider', z.object({ a: z.int() }), z.object({ a: z.number() }), []],
    [
      'it may be null',
      z.object({ a: z.string().nullable() }),
      z.object({ a: z.string() }),
      ['a type: is null, only a string fits'],
    ],
    ['it may be null there too', z.object({ a: z.string() }), z.object({ a: z.string().nullable() }), []],
    ['a value is gone', base, base.extend({ kind: z.enum(['a', 'c']) }), ['kind values: "b" does not fit']],
    ['a value was added', base, base.extend({ kind: z.enum(['a', 'b', 'c']) }), []],
    [
      'a text became a choice',
      base,
      base.extend({ id: z.literal('x') }),
      ['id values: was any string, only "x" fit'],
    ],
    ['a choice became a text', base, base.extend({ kind: z.string() }), []],
    [
      'bounds are closer',
      z.object({ a: z.string().max(9) }),
      z.object({ a: z.string().min(2).max(5) }),
      ['a bounds: `minLength` is 2, and was not set', 'a bounds: `maxLength` is 5, and was 9'],
    ],
    ['bounds are wider', z.object({ a: z.number().min(2) }), z.object({ a: z.number().min(1) }), []],
    [
      'a format was added',
      z.object({ a: z.string() }),
      z.object({ a: z.uuid() }),
      ['a format: `format` is "uuid", and was not set'],
    ],
    [
      'something deep changed',
      z.object({ a: z.array(z.object({ b: z.string() })) }),
      z.object({ a: z.array(z.object({ b: z.boolean() })) }),
      ['a.*.b type: is a string, only a boolean fits'],
    ],
    [
      'values of a record changed',
      z.record(z.string(), z.string()),
      z.record(z.string(), z.number()),
      ['* type: is a string, only a number fits'],
    ],
    [
      'one of a union is gone',
      z.object({ a: z.union([z.string(), z.number()]) }),
      z.object({ a: z.string() }),
      ['a type: is a number, only a string fits'],
    ],
    [
      'a union got another',
      z.object({ a: z.string() }),
      z.object({ a: z.union([z.string(), z.number()]) }),
      [],
    ],
    [
      'a variant of a discriminated union changed',
      z.discriminatedUnion('t', [
        z.object({ t: z.literal('a'), x: z.string() }),
        z.object({ t: z.literal('b') }),
      ]),
      z.discriminatedUnion('t', [
        z.object({ t: z.literal('a'), x: z.number() }),
        z.object({ t: z.literal('b') }),
      ]),
      ['x type: is a string, only a number fits'],
    ],
    [
      'anything was taken',
      z.object({ a: z.unknown() }),
      z.object({ a: z.string() }),
      ['a type: may be anything, only a string fits'],
    ],
    ['anything is taken', base, z.unknown(), []],
    [
      'a tuple is shorter',
      z.tuple([z.string(), z.string()]),
      z.tuple([z.string(), z.int()]),
      ['1 type: is a string, only an integer fits'],
    ],
    [
      'parts of an intersection changed',
      z.intersection(z.object({ a: z.string() }), z.object({ b: z.string() })),
      z.intersection(z.object({ a: z.string() }), z.object({ b: z.int() })),
      ['b type: is a string, only an integer fits'],
    ],
    [
      'valibot',
      v.object({ a: v.string(), b: v.optional(v.number()) }),
      v.object({ a: v.number(), b: v.number() }),
      ['b required: may be missing, but is required', 'a type: is a string, only a number fits'],
    ],
    [
      'arktype',
      type({ a: 'string', 'b?': "'x' | 'y'" }),
      type({ a: 'string', 'b?': "'x'" }),
      ['b values: "y" does not fit'],
    ],
    ['two libraries say the same', z.object({ a: z.string() }), type({ a: 'string' }), []],
  ])('%s', async (_what, from, to, expected) => {
    const found = await incompatibilities(from, to)
    expect(found).toHaveLength(expected.length)
    for (const [index, text] of expected.entries()) expect(found[index]).toContain(text)
  })

  test('schemas refer to themselves', async () => {
    const tree = (leaf: Schema): Schema => {
      const node: z.ZodType = z.object({ leaf: leaf as z.ZodType, children: z.array(z.lazy(() => node)) })
      return node
    }
    expect(await incompatibilities(tree(z.string()), tree(z.string()))).toEqual([])
    expect((await incompatibilities(tree(z.string()), tree(z.int())))[0]).toBe(
      'leaf type: is a string, only an integer fits',
    )
  })

  test.each<[JsonSchema, JsonSchema, string | undefined]>([
    [true, true, undefined],
    [false, { type: 'string' }, undefined],
    [{ type: 'string' }, false, 'type'],
    [true, { type: 'string' }, 'type'],
    [{ type: 'string' }, { not: { const: 'x' } }, 'unclear'],
    [{ $ref: '#/$defs/none' }, { type: 'string' }, 'unclear'],
    [{ $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } }, { type: 'string' }, 'unclear'],
    [{ $ref: 'https://example.org/x' }, { type: 'string' }, 'unclear'],
    [{ $ref: 'https://example.org/x' }, {}, undefined],
    [{ enum: ['x', 1] }, { type: 'string' }, 'type'],
    [{ enum: ['x', 'y'] }, { type: 'string' }, undefined],
    [{ type: 'boolean' }, { enum: [true, false] }, undefined],
    [{ type: 'integer', minimum: 0 }, { type: 'integer', minimum: -9007199254740991 }, undefined],
    [{ type: 'object' }, { type: 'object', additionalProperties: { type: 'string' } }, 'type'],
    [
      { type: 'object', properties: { ['__proto__']: {} } },
      { type: 'object', required: ['constructor'] },
      'required',
    ],
  ])('%j goes to %j: %s', (from, to, rule) => {
    expect(findIncompatibilities(from, to)[0]?.rule).toBe(rule)
  })
})

describe('schemas that refer to themselves', () => {
  const tree = (leaf: z.ZodType, more: Record<string, z.ZodType> = {}): z.ZodType => {
    const node: z.ZodType = z.object({
      leaf,
      left: z.lazy(() => node).optional(),
      right: z.lazy(() => node).optional(),
      children: z.array(z.lazy(() => node)),
      byName: z.record(
        z.string(),
        z.lazy(() => node),
      ),
      ...more,
    })
    return node
  }
  const expression = (value: z.ZodType): z.ZodType => {
    const node: z.ZodType = z.lazy(() =>
      z.union([
        z.object({ kind: z.literal('value'), value }),
        z.object({ kind: z.literal('add'), left: node, right: node }),
        z.object({ kind: z.literal('call'), args: z.array(node), by: node.optional() }),
      ]),
    )
    return node
  }

  test.each<[string, Schema, Schema, readonly string[]]>([
    ['JSON', z.json(), z.json(), []],
    ['JSON beside a change', z.object({ a: z.json() }), z.object({ a: z.json(), b: z.int().optional() }), []],
    ['a tree', tree(z.string()), tree(z.string(), { more: z.string().optional() }), []],
    ['a changed leaf', tree(z.string()), tree(z.int()), ['leaf type: is a string, only an integer fits']],
    [
      'a required property more',
      tree(z.string()),
      tree(z.string(), { more: z.int() }),
      ['more required: may be missing, but is required'],
    ],
    ['an expression', expression(z.number()), z.object({ e: expression(z.number()) }).shape.e, []],
    [
      'a changed expression',
      z.object({ deep: z.object({ e: expression(z.number()) }), e: expression(z.number()) }),
      z.object({ deep: z.object({ e: expression(z.int()) }), e: expression(z.int()) }),
      [
        'e.value type: is a number, only an integer fits',
        'deep.e.value type: is a number, only an integer fits',
      ],
    ],
  ])('end, and give each finding once, at its shortest path: %s', async (_what, from, to, expected) => {
    expect(await incompatibilities(from, to)).toEqual(expected)
  })

  test('give the same one for a chain of any length, however its links are named', () => {
    const chain = (length: number, value: JsonSchema): JsonSchema => ({
      $ref: '#/$defs/link0',
      $defs: Object.fromEntries(
        Array.from({ length }, (_, index) => [
          `link${index}`,
          {
            type: 'object',
            properties: { value, next: { $ref: `#/$defs/link${(index + 1) % length}` } },
            required: ['value'],
          },
        ]),
      ),
    })
    expect(findIncompatibilities(chain(1, { type: 'string' }), chain(1, { type: 'integer' }))).toHaveLength(1)
    expect(findIncompatibilities(chain(3, { type: 'string' }), chain(5, { type: 'string' }))).toEqual([])
  })
})

describe('the same change', () => {
  test('is told at each property that has it, and once where both refer to one definition', () => {
    const amounts = (amount: JsonSchema, $defs = {}): JsonSchema => ({
      type: 'object',
      properties: {
        net: amount,
        gross: amount,
        lines: { type: 'array', items: { type: 'object', properties: { net: amount } } },
      },
      $defs,
    })
    const paths = (from: JsonSchema, to: JsonSchema): readonly string[] =>
      findIncompatibilities(from, to).map(({ path }) => path)
    const copy = (schema: JsonSchema): JsonSchema => structuredClone(schema)
    expect(
      paths(
        JSON.parse(JSON.stringify(amounts({ type: 'number' }))) as JsonSchema,
        JSON.parse(JSON.stringify(amounts({ type: 'integer' }))) as JsonSchema,
      ),
    ).toEqual(['net', 'gross', 'lines.*.net'])
    const shared = { $ref: '#/$defs/amount' }
    expect(
      paths(
        copy(amounts(shared, { amount: { type: 'number' } })),
        copy(amounts(shared, { amount: { type: 'integer' } })),
      ),
    ).toEqual(['net'])
  })
})

describe('large schemas take less than a second', () => {
  const variant = (index: number, a: JsonSchema): JsonSchema => ({
    type: 'object',
    properties: {
      kind: { const: `kind${index}` },
      a,
      b: { type: 'integer' },
      c: { type: 'array', items: { type: 'string' } },
    },
    required: ['kind', 'a'],
    additionalProperties: false,
  })
  const union = (keyword: string, a: (index: number) => JsonSchema): JsonSchema => ({
    [keyword]: Array.from({ length: 120 }, (_, index) => variant(index, a(index))),
  })
  const text: JsonSchema = { type: 'string' }
  const wide = (changed: number): JsonSchema => ({
    type: 'object',
    properties: Object.fromEntries(
      Array.from({ length: 1700 }, (_, index) => [
        `field${index}`,
        {
          type: 'object',
          properties: Object.fromEntries(
            Array.from({ length: 8 }, (_, inner) => [
              `inner${inner}`,
              {
                type: index === changed && inner === 3 ? 'integer' : 'string',
                description: `The field number ${inner} of ${index}`,
                maxLength: 20 + ((index * 8 + inner) % 1000),
              },
            ]),
          ),
        },
      ]),
    ),
  })
  const shared = (schema: JsonSchema, $defs = {}): JsonSchema => ({
    $ref: '#/$defs/all',
    $defs: { all: schema, other: { $ref: '#/$defs/all' }, ...$defs },
  })
  const deep = (leaf: JsonSchema): JsonSchema => {
    let schema = leaf
    for (let level = 0; level < 600; level += 1) schema = { type: 'object', properties: { a: schema } }
    return schema
  }
  const nested = (leaf: JsonSchema): JsonSchema => ({
    $ref: '#/$defs/level13',
    $defs: Object.fromEntries(
      Array.from({ length: 14 }, (_, level) => {
        const inner = level === 0 ? leaf : { $ref: `#/$defs/level${level - 1}` }
        const objects = ['a', 'b'].map((name) => ({ type: 'object', properties: { [name]: inner } }))
        return [`level${level}`, { anyOf: [{ type: 'array', items: inner }, ...objects] }]
      }),
    ),
  })
  const product = (more: object): JsonSchema => ({
    allOf: Array.from({ length: 14 }, (_, index) => ({
      anyOf: [{ properties: { [`a${index}`]: text } }, { properties: { [`b${index}`]: text } }],
    })),
    ...more,
  })
  const values = (start: number): readonly string[] =>
    Array.from({ length: 5000 }, (_, index) => `value${start + index}`)

  test.each<[string, JsonSchema, JsonSchema, number]>([
    ['120 objects, and the same', union('anyOf', () => text), union('anyOf', () => text), 0],
    [
      '120 objects, one changed',
      union('anyOf', () => text),
      union('anyOf', (index) => (index === 60 ? { type: 'integer' } : text)),
      1,
    ],
    [
      '120 objects, all changed',
      union('anyOf', () => text),
      union('anyOf', () => ({ type: 'string', minLength: 1 })),
      1,
    ],
    [
      '120 objects of oneOf, all wider',
      union('oneOf', () => text),
      union('oneOf', () => ({ type: ['string', 'null'] })),
      0,
    ],
    ['1.3 MB, and the same', wide(-1), wide(-1), 0],
    ['1.3 MB, one property changed', wide(-1), wide(800), 1],
    [
      '1.3 MB that refer to themselves, and another definition',
      shared(wide(-1)),
      shared(wide(-1), { more: text }),
      0,
    ],
    ['600 levels', deep(text), deep({ type: 'integer' }), 1],
    ['14 levels of unions that cannot be told apart', nested(text), nested({ type: ['string', 'null'] }), 0],
    ['16,384 alternatives', product({}), product({ title: 'more' }), 1],
    [
      'a pattern that backtracks',
      { type: 'string', maxLength: 5000 },
      { type: 'string', pattern: '^(a+)+b$' },
      1,
    ],
    [
      '5,000 values, one of them another',
      { enum: values(0) },
      { anyOf: values(1).map((value) => ({ const: value })) },
      1,
    ],
  ])('%s', (_what, from, to, count) => {
    const [before, after] = [
      JSON.parse(JSON.stringify(from)) as JsonSchema,
      JSON.parse(JSON.stringify(to)) as JsonSchema,
    ]
    const start = process.cpuUsage()
    const found = findIncompatibilities(before, after)
    const { user, system } = process.cpuUsage(start)
    expect(found).toHaveLength(count)
    expect((user + system) / 1e6).toBeLessThan(1)
  })

  test('or say that they are too complex', () => {
    expect(findIncompatibilities(product({}), product({ title: 'more' }))).toMatchObject([
      { rule: 'unclear', detail: expect.stringContaining('too complex') as string },
    ])
  })
})

describe('the JSON Schema of a schema', () => {
  test.each<[string, Schema, string, unknown]>([
    ['zod', z.object({ a: z.string() }), 'standard', { type: 'object' }],
    [
      'zod that transforms',
      z.object({ a: z.string().transform(Number) }),
      'standard',
      { properties: { a: {} } },
    ],
    ['arktype', type({ a: 'string' }), 'standard', { properties: { a: { type: 'string' } } }],
    [
      'arktype of before',
      before(type({ a: 'string' })),
      'arktype',
      { properties: { a: { type: 'string' } } },
    ],
    ['valibot', v.object({ a: v.string() }), 'valibot', { properties: { a: { type: 'string' } } }],
    [
      'valibot that transforms',
      v.object({ a: v.pipe(v.string(), v.transform(Number)) }),
      'valibot',
      { type: 'object', properties: { a: {} } },
    ],
  ])('is known for %s', async (_what, schema, origin, expected) => {
    const described = await describeSchema(schema)
    expect(described.origin).toBe(origin)
    expect(described.output).toMatchObject(expected as object)
    expect(described.output).not.toHaveProperty('$schema')
  })

  test.each<[string, Schema, JsonSchema, JsonSchema | undefined]>([
    [
      'valibot: the whole becomes something else',
      v.pipe(
        v.object({ user_id: v.string() }),
        v.transform(({ user_id }) => ({ userId: user_id })),
      ),
      {},
      { type: 'object', properties: { user_id: { type: 'string' } }, required: ['user_id'] },
    ],
    [
      'valibot: a schema behind a transformation',
      v.pipe(v.string(), v.transform(Number), v.number(), v.integer()),
      { type: 'integer' },
      { type: 'string' },
    ],
    [
      'valibot: a transformation in a list, behind a reference',
      v.object({ a: v.array(v.lazy(() => v.pipe(v.string(), v.parseJson()))) }),
      {
        type: 'object',
        properties: { a: { type: 'array', items: { $ref: '#/$defs/0' } } },
        required: ['a'],
        $defs: { 0: {} },
      },
      undefined,
    ],
    [
      'valibot: what changes texts keeps them texts',
      v.pipe(v.string(), v.minLength(5), v.trim(), v.maxLength(9)),
      { type: 'string', maxLength: 9 },
      { type: 'string', minLength: 5, maxLength: 9 },
    ],
    [
      'valibot: a format survives toLowerCase',
      v.pipe(v.string(), v.email(), v.toLowerCase()),
      { type: 'string', format: 'email' },
      undefined,
    ],
    [
      'valibot: fewer items',
      v.pipe(v.array(v.string()), v.minLength(2), v.filterItems(Boolean)),
      { type: 'array', items: { type: 'string' } },
      undefined,
    ],
    [
      'valibot: what has a default is there',
      v.object({
        a: v.optional(v.string(), 'x'),
        b: v.optional(v.string()),
        c: v.nullable(v.string(), 'x'),
        d: v.undefinedable(v.string()),
      }),
      {
        type: 'object',
        properties: {
          a: { type: 'string', default: 'x' },
          b: { type: 'string' },
          c: { type: 'string' },
          d: { type: 'string' },
        },
        required: ['a', 'c'],
      },
      undefined,
    ],
    [
      'valibot: a tuple leaves out further items',
      v.tuple([v.string()]),
      { type: 'array', prefixItems: [{ type: 'string' }], minItems: 1, items: false },
      undefined,
    ],
    [
      'valibot: a pattern with a flag',
      v.pipe(v.string(), v.regex(/^a/i)),
      { type: 'string' },
      { type: 'string' },
    ],
    ['zod: a pattern with a flag', z.string().regex(/^a/i), { type: 'string' }, { type: 'string' }],
    [
      'zod: trim after a check',
      z.string().min(5).trim(),
      { type: 'string' },
      { type: 'string', minLength: 5 },
    ],
    [
      'zod: trim before a check',
      z.string().trim().min(5),
      { type: 'string', minLength: 5 },
      { type: 'string', minLength: 5 },
    ],
    [
      'zod: an integer that is changed',
      z.int().overwrite((value) => value / 2),
      { type: 'number' },
      undefined,
    ],
    [
      'zod: a pipe',
      z.string().transform(Number).pipe(z.number().min(3)),
      { type: 'number', minimum: 3 },
      { type: 'string' },
    ],
    [
      'zod: a codec',
      z.codec(z.string(), z.number(), { decode: Number, encode: String }),
      { type: 'number' },
      { type: 'string' },
    ],
    ['arktype: a morph', type('string').pipe((text) => text.length), {}, { type: 'string' }],
    ['arktype of before: a morph', before(type('string.numeric.parse')), { type: 'number' }, undefined],
  ])('is that of what is stored: %s', async (_what, schema, output, input) => {
    const described = await describeSchema(schema)
    expect(described.output).toEqual(output)
    expect(described.input).toEqual(input ?? described.input)
  })

  test('is said to be unknown for any other, and for one that throws', async () => {
    const other: Schema = { '~standard': { version: 1, vendor: 'own', validate: (value) => ({ value }) } }
    const throwing = {
      '~standard': {
        ...other['~standard'],
        jsonSchema: {
          input: () => ({}),
          output: () => {
            throw new Error('no')
          },
        },
      },
    }
    for (const schema of [other, throwing])
      expect(await describeSchema(schema)).toEqual({ output: undefined, input: undefined, origin: 'unknown' })
  })
})

/** As arktype was before it had the interface. */
function before(schema: Schema & { toJsonSchema: () => unknown; in?: unknown; out?: unknown }): Schema {
  const { jsonSchema: _later, ...standard } = schema['~standard'] as Schema['~standard'] & {
    jsonSchema?: unknown
  }
  return {
    '~standard': standard,
    in: schema.in,
    out: schema.out,
    toJsonSchema: (...args: []) => schema.toJsonSchema(...args),
  } as Schema
}
