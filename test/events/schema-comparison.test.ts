import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { EventDefinition } from '../../src/index.ts'
import { describeSchema, type JsonSchema } from '../../src/events/json-schema.ts'
import { findMisfits } from '../../src/events/schema-comparison.ts'

type Schema = EventDefinition['schema']

async function misfits(from: Schema, to: Schema): Promise<readonly string[]> {
  const [a, b] = [await describeSchema(from), await describeSchema(to)]
  return findMisfits(a.output ?? true, b.output ?? true).map(
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
      ['a format: `pattern` is', 'a format: `format` is "uuid"'],
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
    const found = await misfits(from, to)
    expect(found).toHaveLength(expected.length)
    for (const [index, text] of expected.entries()) expect(found[index]).toContain(text)
  })

  test('schemas refer to themselves', async () => {
    const tree = (leaf: Schema): Schema => {
      const node: z.ZodType = z.object({ leaf: leaf as z.ZodType, children: z.array(z.lazy(() => node)) })
      return node
    }
    expect(await misfits(tree(z.string()), tree(z.string()))).toEqual([])
    expect((await misfits(tree(z.string()), tree(z.int())))[0]).toBe(
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
    [{ $ref: 'https://example.org/x' }, {}, 'unclear'],
    [{ enum: ['x', 1] }, { type: 'string' }, 'type'],
    [{ enum: ['x', 'y'] }, { type: 'string' }, undefined],
    [{ type: 'boolean' }, { enum: [true, false] }, undefined],
    [{ type: 'integer', minimum: 0 }, { type: 'integer', minimum: -9007199254740991 }, undefined],
    [{ type: 'object' }, { type: 'object', additionalProperties: { type: 'string' } }, 'type'],
    [{ properties: { ['__proto__']: {} } }, { type: 'object', required: ['constructor'] }, 'required'],
  ])('%j goes to %j: %s', (from, to, rule) => {
    expect(findMisfits(from, to)[0]?.rule).toBe(rule)
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
      { type: 'object' },
    ],
  ])('is known for %s', async (_what, schema, origin, expected) => {
    const described = await describeSchema(schema)
    expect(described.origin).toBe(origin)
    expect(described.output).toMatchObject(expected as object)
    expect(described.output).not.toHaveProperty('$schema')
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
function before(schema: Schema & { toJsonSchema: () => unknown }): Schema {
  const { jsonSchema: _later, ...standard } = schema['~standard'] as Schema['~standard'] & {
    jsonSchema?: unknown
  }
  return { '~standard': standard, toJsonSchema: (...args: []) => schema.toJsonSchema(...args) } as Schema
}
