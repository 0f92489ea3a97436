import type { JsonSchema } from '../../src/events/contracts/schema-dialect.ts'

import fc from 'fast-check'

type SchemaObject = Record<string, unknown>

const names = ['a', 'b', 'xa'] as const
const name = fc.constantFrom(...names)
const patterns = ['^a', '^[ab]+$', 'b$', '^x', '^.{2}$', '^(a|b)$'] as const
const whole = fc.integer({ min: -2, max: 4 })
const number = fc.oneof(whole, fc.constantFrom(0.5, 1.5, -0.5, 2.25, 0.1))
const text = fc.constantFrom(
  '',
  'a',
  'b',
  'ab',
  'xa',
  'bab',
  '2020-01-31',
  '0191e6b7-5f3c-7abc-8def-0123456789ab',
)
const scalar = fc.oneof(number, text, fc.boolean(), fc.constant(null))

/** Values that tell the schemas below apart. */
export const smallValue: fc.Arbitrary<unknown> = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    scalar,
    scalar,
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(name, tie('value'), { maxKeys: 3, noNullPrototype: true }),
  ),
})).value

const count = fc.integer({ min: 0, max: 3 })

/** Some of the keywords of a record, so that most are left out. */
function some(keywords: Record<string, fc.Arbitrary<unknown>>): fc.Arbitrary<SchemaObject> {
  return fc.record(
    Object.fromEntries(
      Object.entries(keywords).map(([keyword, value]) => [
        keyword,
        fc.option(value, { nil: undefined, freq: 2 }),
      ]),
    ),
  )
}

/**
 * Small schemas with nearly every keyword. Objects say of additional properties what they mean: what is left open there is a
 * rule of the comparison of its own.
 */
const smallSchema: fc.Arbitrary<JsonSchema> = fc
  .letrec<{ schema: JsonSchema }>((tie) => {
    const inner = tie('schema')
    const parts = fc.array(inner, { minLength: 1, maxLength: 3 })
    const numeric = some({
      minimum: number,
      maximum: number,
      exclusiveMinimum: number,
      exclusiveMaximum: number,
      multipleOf: fc.constantFrom(1, 2, 3, 0.5, 0.1, 0.25),
    })
    const textual = some({
      minLength: count,
      maxLength: count,
      pattern: fc.constantFrom(...patterns),
      format: fc.constantFrom('date', 'uuid'),
    })
    const list = some({
      minItems: count,
      maxItems: count,
      uniqueItems: fc.boolean(),
      items: inner,
      prefixItems: parts,
      contains: inner.filter((schema) => typeof schema !== 'boolean'),
      unevaluatedItems: fc.boolean(),
    }).map(({ contains, ...schema }) =>
      // ajv takes an empty array for one that contains something, where there are `prefixItems`.
      contains === undefined || schema['prefixItems'] !== undefined ? schema : { ...schema, contains },
    )
    const object = fc
      .tuple(
        some({
          properties: fc.dictionary(name, inner, { maxKeys: 3, noNullPrototype: true }),
          patternProperties: fc.dictionary(fc.constantFrom('^x', 'a$', '^a'), inner, {
            maxKeys: 2,
            noNullPrototype: true,
          }),
          required: fc.uniqueArray(name, { maxLength: 2 }),
          propertyNames: fc.oneof(
            fc.record({ enum: fc.uniqueArray(name, { minLength: 1 }) }),
            fc.record({ pattern: fc.constantFrom(...patterns) }),
            fc.record({ maxLength: count }),
          ),
          minProperties: count,
          maxProperties: count,
          dependentRequired: fc.dictionary(name, fc.uniqueArray(name, { maxLength: 2 }), {
            maxKeys: 1,
            noNullPrototype: true,
          }),
          dependentSchemas: fc.dictionary(name, inner, { maxKeys: 1, noNullPrototype: true }),
        }),
        fc.oneof(fc.boolean(), inner),
      )
      .map(([schema, additionalProperties]) =>
        schema['properties'] === undefined && schema['patternProperties'] === undefined
          ? schema
          : { ...schema, additionalProperties },
      )
    const typed = (type: unknown, keywords: fc.Arbitrary<SchemaObject>): fc.Arbitrary<SchemaObject> =>
      keywords.map((schema) => ({ type, ...schema }))
    const listed = fc.uniqueArray(scalar, {
      minLength: 1,
      maxLength: 4,
      selector: (value) => JSON.stringify(value),
    })
    return {
      schema: fc.oneof(
        { maxDepth: 3, depthSize: 'small' },
        fc.constantFrom<JsonSchema>(
          true,
          false,
          { type: 'string' },
          { type: 'integer' },
          { type: 'number' },
          { type: 'boolean' },
          { type: 'null' },
        ),
        scalar.map((value) => ({ const: value })),
        listed.map((values) => ({ enum: values })),
        typed('number', numeric),
        typed('integer', numeric),
        typed('string', textual),
        fc
          .uniqueArray(fc.constantFrom('string', 'number', 'integer', 'null', 'boolean', 'array', 'object'), {
            minLength: 1,
            maxLength: 3,
          })
          .map((type) => ({ type })),
        typed('array', list),
        typed('object', object),
        typed('object', object),
        fc.tuple(parts, fc.oneof(numeric, textual, object)).map(([anyOf, more]) => ({ anyOf, ...more })),
        parts.map((oneOf) => ({ oneOf })),
        parts.map((allOf) => ({ allOf })),
        fc.tuple(inner, fc.oneof(textual, numeric)).map(([not, more]) => ({ not, ...more })),
        fc.tuple(inner, inner, inner).map((parts) => conditional(...parts)),
        fc.constant({ $ref: '#/$defs/shared' }),
      ),
    }
  })
  .schema.map((schema) => JSON.parse(JSON.stringify(schema)) as JsonSchema)

/** `if`, `then` and `else`, by entries: an object with a `then` of its own is easily taken for a promise. */
export function conditional(...parts: readonly [JsonSchema, JsonSchema, JsonSchema?]): JsonSchema {
  return Object.fromEntries(['if', 'then', 'else'].map((keyword, index) => [keyword, parts[index] ?? true]))
}

/** A schema that may refer to another, and to itself. */
export const smallDocument: fc.Arbitrary<JsonSchema> = fc
  .tuple(smallSchema, smallSchema)
  .map(([schema, shared]) =>
    typeof schema === 'boolean' ? schema : { ...schema, $defs: { shared: withoutLoop(shared) } },
  )

/** What refers to itself without anything between has no meaning. */
function withoutLoop(shared: JsonSchema): JsonSchema {
  const inPlace = ['$ref', 'anyOf', 'oneOf', 'allOf', 'not', 'if', 'then', 'else', 'dependentSchemas']
  const strip = (schema: unknown, isInPlace: boolean): unknown => {
    if (schema === null || typeof schema !== 'object') return schema
    if (Array.isArray(schema)) return schema.map((item) => strip(item, isInPlace))
    if (isInPlace && '$ref' in schema) return { type: 'string' }
    return Object.fromEntries(
      Object.entries(schema).map(([keyword, value]) => [
        keyword,
        strip(value, isInPlace && inPlace.includes(keyword)),
      ]),
    )
  }
  return strip(shared, true) as JsonSchema
}

/** As readers take it: what they do not know they leave alone. Below `not` and `if` it stands as it is. */
export function asRead(schema: JsonSchema): JsonSchema {
  const relax = (value: unknown): unknown => {
    if (value === null || typeof value !== 'object') return value
    if (Array.isArray(value)) return value.map(relax)
    return Object.fromEntries(
      Object.entries(value)
        .filter(
          ([keyword, part]) =>
            !(['additionalProperties', 'unevaluatedProperties'].includes(keyword) && part === false),
        )
        .map(([keyword, part]) => [
          keyword,
          ['not', 'if', 'const', 'enum', 'required'].includes(keyword) ? part : relax(part),
        ]),
    )
  }
  return relax(schema) as JsonSchema
}

/** A schema and one that differs from it a little. */
export const similarSchemas: fc.Arbitrary<readonly [JsonSchema, JsonSchema]> = fc
  .tuple(smallDocument, smallDocument, fc.nat(), fc.nat())
  .map(([one, other, place, choice]): readonly [JsonSchema, JsonSchema] => {
    const copy = structuredClone(one)
    const places: { holder: Record<string, unknown>; key: string }[] = []
    const visit = (value: unknown): void => {
      if (value === null || typeof value !== 'object') return
      for (const key of Object.keys(value)) {
        if (!Array.isArray(value)) places.push({ holder: value as Record<string, unknown>, key })
        visit((value as Record<string, unknown>)[key])
      }
    }
    visit(copy)
    const chosen = places[place % Math.max(1, places.length)]
    if (chosen === undefined) return [one, other]
    const { holder, key } = chosen
    const before = holder[key]
    if (typeof before === 'number') holder[key] = before + (choice % 2 === 0 ? 1 : -1)
    else if (Array.isArray(before)) {
      if (choice % 2 === 0 && before.length > 1) before.pop()
      else if (['anyOf', 'oneOf', 'allOf'].includes(key)) before.push(other)
      else delete holder[key]
    } else if (
      choice % 3 === 0 &&
      typeof before === 'object' &&
      !['properties', '$defs', 'patternProperties', 'dependentSchemas', 'dependentRequired'].includes(key)
    )
      holder[key] = other
    else if (key !== '$defs' && key !== 'shared' && key !== 'additionalProperties') delete holder[key]
    return choice % 5 === 0 ? [copy, one] : [one, copy]
  })
  .filter(([one, other]) => isWritten(one) && isWritten(other))

/** Whether all objects say what of additional properties they mean, and nothing is malformed by the change. */
function isWritten(schema: unknown, isMap = false): boolean {
  if (schema === null || typeof schema !== 'object') return true
  if (Array.isArray(schema)) return schema.every((item) => isWritten(item))
  const given = schema as Record<string, unknown>
  if (
    !isMap &&
    (given['properties'] !== undefined || given['patternProperties'] !== undefined) &&
    given['additionalProperties'] === undefined
  )
    return false
  for (const keyword of [
    'minLength',
    'maxLength',
    'minItems',
    'maxItems',
    'minProperties',
    'maxProperties',
    'multipleOf',
  ])
    if (
      !isMap &&
      typeof given[keyword] === 'number' &&
      given[keyword] < (keyword === 'multipleOf' ? 1e-9 : 0)
    )
      return false
  const maps = ['properties', '$defs', 'patternProperties', 'dependentSchemas', 'dependentRequired']
  return Object.entries(given).every(([key, value]) => isWritten(value, !isMap && maps.includes(key)))
}
