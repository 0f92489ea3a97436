import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { EventDefinition } from '../../../src/index.ts'
import { describeSchema } from '../../../src/events/contracts/json-schema.ts'
import { findIncompatibilities } from '../../../src/events/compatibility/schema-comparison.ts'
import { conditional } from '../../support/schema-arbitrary.ts'
import type { JsonSchema } from '../../../src/events/contracts/schema-dialect.ts'

type Schema = EventDefinition['schema']

/** What a change means: nothing, a break, or that it cannot be told. */
type Verdict = 'fits' | 'breaks' | 'unclear'

/** Before, after, what stored values mean for the new schema, what new values mean for readers of the old one. */
type Change = readonly [string, Schema | JsonSchema, Schema | JsonSchema, Verdict, Verdict]

async function toJsonSchema(schema: Schema | JsonSchema): Promise<JsonSchema> {
  if (typeof schema === 'boolean' || !('~standard' in schema)) return schema
  return (await describeSchema(schema as Schema)).output ?? true
}

function verdictOf(from: JsonSchema, to: JsonSchema): Verdict {
  const incompatibilities = findIncompatibilities(from, to)
  if (incompatibilities.length === 0) return 'fits'
  return incompatibilities.some(({ rule }) => rule !== 'unclear') ? 'breaks' : 'unclear'
}

const object = (properties: Record<string, JsonSchema>, required: readonly string[] = []): JsonSchema => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
})
const text = { type: 'string' }
const int = { type: 'integer' }
const num = { type: 'number' }
const list = (items: JsonSchema, more = {}): JsonSchema => ({ type: 'array', items, ...more })

const whenI = conditional({ properties: { k: { const: 'i' } } }, { properties: { v: int } })

const ofZod: readonly Change[] = [
  ['an optional property more', z.object({ a: z.string() }), z.object({ a: z.string(), b: z.int().optional() }), 'fits', 'fits'],
  ['a required property more', z.object({ a: z.string() }), z.object({ a: z.string(), b: z.int() }), 'breaks', 'fits'],
  ['a property with a default more', z.object({}), z.object({ b: z.int().default(1) }), 'breaks', 'fits'],
  ['an optional property gets a default', z.object({ b: z.int().optional() }), z.object({ b: z.int().default(1) }), 'breaks', 'fits'],
  ['strict becomes plain', z.strictObject({ a: z.string() }), z.object({ a: z.string() }), 'fits', 'fits'],
  ['strict becomes loose', z.strictObject({ a: z.string() }), z.looseObject({ a: z.string() }), 'fits', 'fits'],
  ['loose gets another property', z.looseObject({ a: z.string() }), z.looseObject({ a: z.string(), b: z.int().optional() }), 'breaks', 'fits'],
  ['a catchall becomes narrower', z.object({}).catchall(z.string()), z.object({}).catchall(z.literal('x')), 'breaks', 'fits'],
  ['enum ↔ union of literals', z.enum(['x', 'y']), z.union([z.literal('x'), z.literal('y')]), 'fits', 'fits'],
  ['enum ↔ literal of several', z.enum(['x', 'y']), z.literal(['y', 'x']), 'fits', 'fits'],
  ['a literal more in a union', z.union([z.literal('x'), z.literal('y')]), z.enum(['x', 'y', 'z']), 'fits', 'breaks'],
  ['true | false → boolean', z.union([z.literal(true), z.literal(false)]), z.boolean(), 'fits', 'fits'],
  ['true → boolean', z.literal(true), z.boolean(), 'fits', 'breaks'],
  ['literal(1) → int', z.literal(1), z.int(), 'fits', 'breaks'],
  ['literal(1.5) → int', z.literal(1.5), z.int(), 'breaks', 'breaks'],
  ['gte(1) → gt(0)', z.number().gte(1), z.number().gt(0), 'fits', 'breaks'],
  ['int gte(1) → int gt(0)', z.int().gte(1), z.int().gt(0), 'fits', 'fits'],
  ['positive → nonnegative', z.number().positive(), z.number().nonnegative(), 'fits', 'breaks'],
  ['multipleOf 1 → 0.01', z.number().multipleOf(1), z.number().multipleOf(0.01), 'fits', 'breaks'],
  ['multipleOf 0.3 → 0.1', z.number().multipleOf(0.3), z.number().multipleOf(0.1), 'fits', 'breaks'],
  ['multipleOf 4 → 6', z.number().multipleOf(4), z.number().multipleOf(6), 'breaks', 'breaks'],
  ['int32 → int', z.int32(), z.int(), 'fits', 'breaks'],
  ['int → number', z.int(), z.number(), 'fits', 'breaks'],
  ['uuidv4 → uuid', z.uuidv4(), z.uuid(), 'fits', 'breaks'],
  ['uuidv7 → uuidv4', z.uuidv7(), z.uuidv4(), 'breaks', 'breaks'],
  ['uuid → guid', z.uuid(), z.guid(), 'fits', 'breaks'],
  ['uuid → string', z.uuid(), z.string(), 'fits', 'breaks'],
  ['uuid → string of 36', z.uuid(), z.string().length(36), 'fits', 'breaks'],
  ['email → string', z.email(), z.string(), 'fits', 'breaks'],
  ['email → url', z.email(), z.url(), 'breaks', 'breaks'],
  ['date → date-time', z.iso.date(), z.iso.datetime(), 'breaks', 'breaks'],
  ['date-time in UTC → with offset', z.iso.datetime(), z.iso.datetime({ offset: true }), 'fits', 'breaks'],
  ['startsWith longer', z.string().startsWith('order_'), z.string().startsWith('order'), 'fits', 'breaks'],
  ['startsWith another', z.string().startsWith('a'), z.string().startsWith('b'), 'breaks', 'breaks'],
  ['a pattern of a length → bounds', z.string().regex(/^[A-Z]{3}$/), z.string().min(2).max(4), 'fits', 'breaks'],
  ['a wider pattern', z.string().regex(/^[A-Z]{3}$/), z.string().regex(/^[A-Z]{3,4}$/), 'fits', 'breaks'],
  ['the same pattern, in other words', z.string().regex(/^\d+$/), z.string().regex(/^[0-9][0-9]*$/), 'fits', 'fits'],
  ['a case-insensitive pattern', z.string().regex(/^a/i), z.string(), 'fits', 'fits'],
  ['longer texts', z.string().max(10), z.string().max(20), 'fits', 'breaks'],
  ['nonempty', z.string(), z.string().min(1), 'breaks', 'fits'],
  ['trim after a check', z.string().min(5), z.string().min(5).trim(), 'fits', 'breaks'],
  ['trim before a check', z.string().min(5), z.string().trim().min(5), 'fits', 'fits'],
  ['nullable', z.string(), z.string().nullable(), 'fits', 'breaks'],
  ['nullish', z.object({ a: z.string() }), z.object({ a: z.string().nullish() }), 'fits', 'breaks'],
  ['a variant more', z.discriminatedUnion('t', [z.object({ t: z.literal('a') })]), z.discriminatedUnion('t', [z.object({ t: z.literal('a') }), z.object({ t: z.literal('b') })]), 'fits', 'breaks'],
  ['variants in another order', z.discriminatedUnion('t', [z.object({ t: z.literal('a'), x: z.int() }), z.object({ t: z.literal('b') })]), z.discriminatedUnion('t', [z.object({ t: z.literal('b') }), z.object({ t: z.literal('a'), x: z.int() })]), 'fits', 'fits'],
  ['one object → variants by its enum', z.object({ t: z.enum(['a', 'b']), x: z.int() }), z.discriminatedUnion('t', [z.object({ t: z.literal('a'), x: z.int() }), z.object({ t: z.literal('b'), x: z.int() })]), 'fits', 'fits'],
  ['one object → variants, one narrower', z.object({ t: z.enum(['a', 'b']), x: z.number() }), z.discriminatedUnion('t', [z.object({ t: z.literal('a'), x: z.number() }), z.object({ t: z.literal('b'), x: z.int() })]), 'breaks', 'fits'],
  ['a union of records → another order', z.union([z.object({ a: z.string() }), z.object({ b: z.int() })]), z.union([z.object({ b: z.int() }), z.object({ a: z.string() })]), 'fits', 'fits'],
  ['a record of known names', z.record(z.string(), z.int()), z.partialRecord(z.enum(['a', 'b']), z.int()), 'breaks', 'fits'],
  ['a record of fewer names', z.partialRecord(z.enum(['a', 'b']), z.int()), z.partialRecord(z.enum(['a']), z.int()), 'breaks', 'fits'],
  ['a record of names by a pattern', z.record(z.string(), z.int()), z.record(z.string().regex(/^x/), z.int()), 'breaks', 'fits'],
  ['values of a record', z.record(z.string(), z.int()), z.record(z.string(), z.number()), 'fits', 'breaks'],
  ['a record → an object of optional ones', z.partialRecord(z.enum(['a', 'b']), z.int()), z.object({ a: z.int().optional(), b: z.int().optional() }), 'fits', 'fits'],
  ['a tuple gets a rest', z.tuple([z.string()]), z.tuple([z.string()]).rest(z.int()), 'fits', 'breaks'],
  ['a tuple → an array', z.tuple([z.string(), z.string()]), z.array(z.string()), 'fits', 'breaks'],
  ['a tuple gets longer', z.tuple([z.string()]), z.tuple([z.string(), z.int()]), 'breaks', 'breaks'],
  ['arrays of at least one', z.array(z.string()), z.array(z.string()).min(1), 'breaks', 'fits'],
  ['an intersection → one object', z.intersection(z.object({ a: z.string() }), z.object({ b: z.int() })), z.object({ a: z.string(), b: z.int() }), 'fits', 'fits'],
  ['JSON as it is', z.object({ a: z.json() }), z.object({ a: z.json(), b: z.int().optional() }), 'fits', 'fits'],
  ['JSON → anything', z.json(), z.unknown(), 'fits', 'fits'],
  ['a text → JSON', z.string(), z.json(), 'fits', 'breaks'],
  ['a transform of another input', z.string().transform(Number), z.int().transform(String), 'fits', 'fits'],
  ['a pipe into a schema', z.number(), z.string().transform(Number).pipe(z.number()), 'fits', 'fits'],
  ['an enum held against new bounds', z.enum(['a', 'bcd']), z.string().max(2), 'breaks', 'breaks'],
  ['an enum that keeps to new bounds', z.enum(['a', 'bc']), z.string().max(2), 'fits', 'breaks'],
  ['an enum held against a pattern', z.enum(['ax', 'bx']), z.string().regex(/x$/), 'fits', 'breaks'],
  ['a template literal', z.templateLiteral(['order-', z.int()]), z.string().startsWith('order-'), 'fits', 'breaks'],
  ['a number or a text → both in one', z.union([z.int(), z.string()]), z.union([z.string(), z.number()]), 'fits', 'breaks'],
  ['readonly, brand and describe', z.string(), z.string().readonly().brand('x').describe('y'), 'fits', 'fits'],
] // prettier-ignore

const ofValibotAndArktype: readonly Change[] = [
  ['valibot: a transform of the whole', v.object({ user_id: v.string() }), v.pipe(v.object({ user_id: v.string() }), v.transform(({ user_id }) => ({ userId: user_id }))), 'fits', 'breaks'],
  ['valibot: a transform with its result', v.object({ a: v.number() }), v.object({ a: v.pipe(v.string(), v.transform(Number), v.number()) }), 'fits', 'fits'],
  ['valibot: a transform of one property', v.object({ a: v.string() }), v.object({ a: v.pipe(v.string(), v.transform(Number)) }), 'fits', 'breaks'],
  ['valibot: toNumber', v.string(), v.pipe(v.string(), v.toNumber()), 'breaks', 'breaks'],
  ['valibot: trim after a check', v.pipe(v.string(), v.minLength(5)), v.pipe(v.string(), v.minLength(5), v.trim()), 'fits', 'breaks'],
  ['valibot: a default', v.object({ a: v.optional(v.string()) }), v.object({ a: v.optional(v.string(), 'x') }), 'breaks', 'fits'],
  ['valibot: brand and check', v.string(), v.pipe(v.string(), v.check((x) => x !== ''), v.brand('x')), 'fits', 'fits'],
  ['valibot: strict', v.object({ a: v.string() }), v.strictObject({ a: v.string() }), 'fits', 'fits'],
  ['valibot: picklist → literals', v.picklist(['a', 'b']), v.union([v.literal('a'), v.literal('b')]), 'fits', 'fits'],
  ['valibot: a variant changed', v.variant('t', [v.object({ t: v.literal('a'), x: v.string() }), v.object({ t: v.literal('b') })]), v.variant('t', [v.object({ t: v.literal('a'), x: v.number() }), v.object({ t: v.literal('b') })]), 'breaks', 'breaks'],
  ['valibot: gtValue(0) → minValue(1) of integers', v.pipe(v.number(), v.integer(), v.gtValue(0)), v.pipe(v.number(), v.integer(), v.minValue(1)), 'fits', 'fits'],
  ['valibot: nullable with a default', v.string(), v.nullable(v.string(), 'x'), 'fits', 'fits'],
  ['valibot: a lazy tree', v.object({ a: v.lazy(() => v.array(v.string())) }), v.object({ a: v.array(v.string()) }), 'fits', 'fits'],
  ['valibot: a regex with a flag', v.pipe(v.string(), v.regex(/^a/i)), v.pipe(v.string(), v.regex(/^a/)), 'breaks', 'fits'],
  ['valibot: an intersection', v.intersect([v.object({ a: v.string() }), v.object({ b: v.string() })]), v.object({ a: v.string(), b: v.string() }), 'fits', 'fits'],
  ['arktype: bounds', type('number >= 1'), type('number > 0'), 'fits', 'breaks'],
  ['arktype: a keyword', type('string.uuid.v4'), type('string.uuid'), 'fits', 'breaks'],
  ['arktype: a literal more', type("'x' | 'y'"), type("'x' | 'y' | 'z'"), 'fits', 'breaks'],
  ['arktype: a divisor', type('number % 6'), type('number % 3'), 'fits', 'breaks'],
  ['arktype: optional', type({ a: 'string' }), type({ 'a?': 'string' }), 'fits', 'breaks'],
  ['arktype: a morph', type({ a: 'string' }), type({ a: 'string.numeric.parse' }), 'breaks', 'breaks'],
  ['arktype: an index signature', type({ '[string]': 'number' }), type({ '[string]': 'number.integer' }), 'breaks', 'fits'],
  ['arktype: itself', type.module({ node: { v: 'string', 'next?': 'node' } }).node, type.module({ node: { v: 'string', 'next?': 'node', 'w?': 'number' } }).node, 'fits', 'fits'],
  ['two libraries: valibot → zod', v.object({ a: v.string(), b: v.optional(v.number()) }), z.object({ a: z.string(), b: z.number().optional() }), 'fits', 'fits'],
  ['two libraries: arktype → zod', type({ a: "'x' | 'y'", 'b?': 'boolean' }), z.object({ a: z.enum(['x', 'y']), b: z.boolean().optional() }), 'fits', 'fits'],
  ['two libraries: uuid', v.pipe(v.string(), v.uuid()), z.uuid(), 'unclear', 'fits'],
] // prettier-ignore

const ofKeywords: readonly Change[] = [
  ['boolean schemas', true, false, 'breaks', 'fits'],
  ['anything → any object', {}, { type: 'object' }, 'breaks', 'fits'],
  ['false in a union', { anyOf: [false, text] }, text, 'fits', 'fits'],
  ['type list', { type: ['string', 'null'] }, { anyOf: [{ type: 'null' }, text] }, 'fits', 'fits'],
  ['all types', true, { type: ['string', 'number', 'boolean', 'null', 'array', 'object'] }, 'fits', 'fits'],
  ['1.0 is an integer', { const: 1.0 }, int, 'fits', 'breaks'],
  ['number, multipleOf 1 → integer', { type: 'number', multipleOf: 1 }, int, 'fits', 'fits'],
  ['integers in a range → enum', { type: 'integer', minimum: 1, maximum: 3 }, { enum: [1, 2, 3] }, 'fits', 'fits'],
  ['exclusive bounds of integers', { type: 'integer', exclusiveMinimum: 0.5, exclusiveMaximum: 3 }, { type: 'integer', minimum: 1, maximum: 2 }, 'fits', 'fits'],
  ['a multiple in bounds', { type: 'integer', minimum: 1, multipleOf: 5 }, { type: 'integer', minimum: 5 }, 'fits', 'breaks'],
  ['both bounds', { type: 'number', minimum: 0, maximum: 1 }, { type: 'number', minimum: 0.5, maximum: 2 }, 'breaks', 'breaks'],
  ['an empty range', { type: 'integer', minimum: 3, maximum: 2 }, text, 'fits', 'breaks'],
  ['length in characters', { const: '😀😀' }, { type: 'string', maxLength: 2 }, 'fits', 'breaks'],
  ['a pattern of an alternative', { type: 'string', pattern: '^(a|b)$' }, { type: 'string', pattern: '^[a-c]$' }, 'fits', 'breaks'],
  ['a pattern that cannot be followed', { type: 'string', pattern: '^(?!a)b' }, { type: 'string', pattern: '^b' }, 'fits', 'unclear'],
  ['a back reference', { type: 'string', pattern: String.raw`^(a|b)\1$` }, { type: 'string', pattern: String.raw`^(b|a)\1$` }, 'unclear', 'unclear'],
  ['a format more', text, { type: 'string', format: 'ipv4' }, 'breaks', 'fits'],
  ['uri → uri-reference', { type: 'string', format: 'uri' }, { type: 'string', format: 'uri-reference' }, 'fits', 'unclear'],
  ['a format that is not known', { type: 'string', format: 'iban' }, { type: 'string', format: 'bic' }, 'unclear', 'unclear'],
  ['a format that is only a hint', text, { type: 'string', format: 'password' }, 'fits', 'fits'],
  ['enum of mixed types', { enum: ['x', 1, null] }, { type: ['string', 'integer'] }, 'breaks', 'breaks'],
  ['objects in an enum', { enum: [{ a: 1 }] }, object({ a: int }, ['a']), 'fits', 'breaks'],
  ['minItems', list(text), list(text, { minItems: 0 }), 'fits', 'fits'],
  ['maxItems', list(text, { maxItems: 3 }), list(text, { maxItems: 2 }), 'breaks', 'fits'],
  ['uniqueItems', list(text), list(text, { uniqueItems: true }), 'breaks', 'fits'],
  ['uniqueItems of one', list(text, { maxItems: 1 }), list(text, { maxItems: 1, uniqueItems: true }), 'fits', 'fits'],
  ['prefixItems', list(int, { prefixItems: [text] }), list(num, { prefixItems: [text] }), 'fits', 'breaks'],
  ['prefixItems → items', { type: 'array', prefixItems: [int, int], items: false }, list(num), 'fits', 'breaks'],
  ['unevaluatedItems', { type: 'array', prefixItems: [text], unevaluatedItems: false }, { type: 'array', prefixItems: [text] }, 'fits', 'unclear'],
  ['contains, by its items', list(text, { minItems: 1 }), { type: 'array', contains: text }, 'fits', 'breaks'],
  ['contains more', { type: 'array', contains: text, minContains: 2 }, { type: 'array', contains: text }, 'fits', 'breaks'],
  ['maxContains', { type: 'array', contains: int, maxContains: 2 }, { type: 'array', contains: int, maxContains: 3 }, 'fits', 'unclear'],
  ['additionalProperties of a type', { type: 'object', additionalProperties: int }, { type: 'object', additionalProperties: num }, 'fits', 'breaks'],
  ['additionalProperties closed', { type: 'object', additionalProperties: int }, object({ a: int }), 'fits', 'fits'],
  ['properties → additionalProperties', object({ a: int, b: int }), { type: 'object', additionalProperties: int }, 'fits', 'fits'],
  ['any object → its property', { type: 'object' }, object({ a: int }), 'breaks', 'fits'],
  ['patternProperties', { type: 'object', patternProperties: { '^x': int }, additionalProperties: false }, { type: 'object', patternProperties: { '^x': num } }, 'fits', 'breaks'],
  ['patternProperties take a property', object({ xa: text }), { type: 'object', patternProperties: { '^x': int } }, 'breaks', 'breaks'],
  ['other patternProperties', { type: 'object', patternProperties: { '^x': text }, additionalProperties: false }, { type: 'object', patternProperties: { '^y': int } }, 'fits', 'fits'],
  ['propertyNames', { type: 'object', additionalProperties: true }, { type: 'object', propertyNames: { maxLength: 3 } }, 'breaks', 'fits'],
  ['propertyNames of what is named', object({ abcd: int }), { type: 'object', propertyNames: { maxLength: 3 } }, 'breaks', 'fits'],
  ['minProperties by required', object({ a: int, b: int }, ['a', 'b']), { type: 'object', minProperties: 2 }, 'fits', 'breaks'],
  ['maxProperties of a closed object', object({ a: int }), { type: 'object', maxProperties: 1 }, 'fits', 'breaks'],
  ['dependentRequired', object({ a: int, b: int }), { ...(object({ a: int, b: int }) as object), dependentRequired: { a: ['b'] } }, 'breaks', 'fits'],
  ['dependentRequired of what is required', object({ a: int, b: int }, ['b']), { ...(object({ a: int, b: int }) as object), dependentRequired: { a: ['b'] } }, 'fits', 'breaks'],
  ['dependentSchemas', object({ a: int, b: num }), { ...(object({ a: int, b: num }) as object), dependentSchemas: { a: { properties: { b: int } } } }, 'breaks', 'fits'],
  ['if, then', object({ k: text, v: num }, ['k']), { ...(object({ k: text, v: num }, ['k']) as object), ...(whenI as object) }, 'breaks', 'fits'],
  ['if, then that does not matter', object({ k: { const: 'f' }, v: num }, ['k']), { ...(object({ k: text, v: num }, ['k']) as object), ...(whenI as object) }, 'fits', 'breaks'],
  ['if, else', { type: 'integer' }, conditional(int, num, false), 'fits', 'fits'],
  ['not, by a type', int, { not: text }, 'fits', 'breaks'],
  ['not, by a value', { enum: ['a', 'b'] }, { not: { const: 'c' } }, 'fits', 'breaks'],
  ['not, that matters', { enum: ['a', 'c'] }, { not: { const: 'c' } }, 'breaks', 'breaks'],
  ['the same not', { type: 'string', not: { const: 'x' } }, { type: 'string', maxLength: 9, not: { const: 'x' } }, 'breaks', 'fits'],
  ['never', { not: {} }, text, 'fits', 'breaks'],
  ['oneOf of what is apart → anyOf', { oneOf: [text, int] }, { anyOf: [text, int] }, 'fits', 'fits'],
  ['oneOf of what is not apart', { anyOf: [int, num] }, { oneOf: [int, num] }, 'breaks', 'fits'],
  ['allOf of bounds', { allOf: [{ type: 'integer', minimum: 1 }, { maximum: 5 }] }, { type: 'integer', minimum: 1, maximum: 5 }, 'fits', 'fits'],
  ['allOf of enums', { allOf: [{ enum: ['a', 'b'] }, { enum: ['b', 'c'] }] }, { const: 'b' }, 'fits', 'fits'],
  ['a union that only together fits', { type: 'integer', minimum: 0, maximum: 9 }, { anyOf: [{ type: 'integer', maximum: 4 }, { type: 'integer', minimum: 5 }] }, 'unclear', 'breaks'],
  ['a $ref and its text', { $ref: '#/$defs/t', $defs: { t: text } }, text, 'fits', 'fits'],
  ['a $ref with more beside', { $ref: '#/$defs/t', maxLength: 3, $defs: { t: text } }, { type: 'string', maxLength: 3 }, 'fits', 'fits'],
  ['an escaped $ref', { $ref: '#/$defs/a~1b%20c', $defs: { 'a/b c': int } }, num, 'fits', 'breaks'],
  ['an anchor', { $ref: '#t', $defs: { x: { $anchor: 't', type: 'integer' } } }, num, 'fits', 'breaks'],
  ['an $id', { $ref: 'other#/$defs/t', $defs: { o: { $id: 'other', $defs: { t: int } } } }, num, 'fits', 'breaks'],
  ['a $dynamicRef to one anchor', { $dynamicRef: '#t', $defs: { x: { $dynamicAnchor: 't', type: 'integer' } } }, num, 'fits', 'breaks'],
  ['a $dynamicRef to one of two', { $dynamicRef: '#t', $defs: { x: { $dynamicAnchor: 't', type: 'integer' }, y: { $dynamicAnchor: 't' } } }, num, 'unclear', 'unclear'],
  ['a $ref that leads nowhere', { $ref: '#/$defs/none' }, text, 'unclear', 'unclear'],
  ['definitions under another name', { $ref: '#/$defs/a', $defs: { a: object({ n: { $ref: '#/$defs/a' }, v: text }) } }, { $ref: '#/$defs/b', $defs: { b: object({ n: { $ref: '#/$defs/b' }, v: text }) } }, 'fits', 'fits'],
  ['two levels of one list', { $ref: '#/$defs/a', $defs: { a: object({ n: { $ref: '#/$defs/a' } }) } }, { $ref: '#/$defs/a', $defs: { a: object({ n: { $ref: '#/$defs/b' } }), b: object({ n: { $ref: '#/$defs/a' } }) } }, 'fits', 'fits'],
  ['a definition changed, out of reach', { $ref: '#/$defs/a', $defs: { a: text, b: int } }, { $ref: '#/$defs/a', $defs: { a: text, b: num } }, 'fits', 'fits'],
  ['titles and descriptions', { type: 'string', title: 'a', description: 'b', examples: ['c'] }, { type: 'string', deprecated: true }, 'fits', 'fits'],
  ['a property called description', object({ description: text }, ['description']), object({ description: int }, ['description']), 'breaks', 'breaks'],
  ['names of the prototype', object({ constructor: text }, ['constructor']), object({ constructor: text, toString: int }, ['constructor']), 'fits', 'fits'],
  ['the safe range of integers', int, { type: 'integer', minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER }, 'fits', 'fits'],
] // prettier-ignore

describe.each([
  ['zod', ofZod],
  ['valibot and arktype', ofValibotAndArktype],
  ['JSON Schema', ofKeywords],
])('a change of %s means for stored events, and for readers of the old schema,', (_library, changes) => {
  test.each(changes)('%s', async (_what, from, to, stored, read) => {
    const [before, after] = [await toJsonSchema(from), await toJsonSchema(to)]
    expect({
      stored: verdictOf(before, after),
      read: verdictOf(after, before),
      same: verdictOf(before, structuredClone(before)),
    }).toEqual({ stored, read, same: 'fits' })
  })
})

test('there are more than 150 changes in the table', () => {
  expect(ofZod.length + ofValibotAndArktype.length + ofKeywords.length).toBeGreaterThan(150)
})
