import { accepts } from './accepts.ts'
import { canonical } from './canonical.ts'
import { commonMultiple, nextMultiple } from './decimal.ts'
import { entriesOf, listOf, textsOf, type SchemaNode, type SchemaObject } from './document.ts'
import { typesOf } from './types-of.ts'

/** The kinds of values that schemas distinguish. A number is an integer or a fraction. */
export type Kind = 'null' | 'boolean' | 'integer' | 'fraction' | 'string' | 'array' | 'object'

export const kinds: readonly Kind[] = ['null', 'boolean', 'integer', 'fraction', 'string', 'array', 'object']

interface Bound {
  readonly value: number
  readonly isExclusive: boolean
}

/** One alternative of a schema: all of its nodes must fit, and they contain no further choice. */
export interface Shape {
  readonly key: string
  readonly nodes: readonly SchemaNode[]
  /** Keys of all schemas that its values fit. */
  readonly holds: ReadonlySet<string>
  /** The kinds for which it may accept more values than its nodes do. */
  readonly loose: ReadonlySet<Kind>
  readonly kinds: ReadonlySet<Kind>
  /** All its values, if they are listed. */
  readonly values: readonly unknown[] | undefined
  readonly lower: Bound
  readonly upper: Bound
  readonly multipleOf: number | undefined
  readonly minLength: number
  readonly maxLength: number
  readonly patterns: readonly string[]
  readonly formats: readonly string[]
  readonly minItems: number
  readonly maxItems: number
  readonly hasUniqueItems: boolean
  readonly minProperties: number
  readonly maxProperties: number
  readonly required: ReadonlySet<string>
}

/** The values of one kind in a shape. */
export interface Part {
  readonly shape: Shape
  readonly kind: Kind
}

/** The source of a shape. */
export interface ShapeSource {
  readonly nodes: readonly SchemaNode[]
  /** All schemas that its values fit, by key. */
  readonly holds: ReadonlyMap<string, SchemaNode>
  readonly loose: ReadonlySet<Kind>
}

/** The values that `const` and `enum` list. */
export function listedValues(schema: unknown): readonly unknown[] | undefined {
  const { const: only, enum: listed } = (schema ?? {}) as { const?: unknown; enum?: unknown }
  if (only !== undefined) return [only]
  return Array.isArray(listed) ? (listed as unknown[]) : undefined
}

export function kindOf(value: unknown): Kind {
  const [type = 'null'] = typesOf(value)
  return type === 'number' ? 'fraction' : (type as Kind)
}

/** Combines what schemas state. Undefined if no value fits all of them. */
export function toShape({ nodes, holds, loose }: ShapeSource): Shape | undefined {
  const schemas = nodes.map(({ schema }) => schema as SchemaObject)
  const numbers = (keyword: string): number[] =>
    schemas.map((schema) => schema[keyword]).filter((bound) => typeof bound === 'number')
  const all = (keyword: string): unknown[] =>
    schemas.map((schema) => schema[keyword]).filter((value) => value !== undefined)
  const types = all('type').map(kindsOfType)
  const allowed = new Set(kinds.filter((kind) => types.every((type) => type.has(kind))))
  const multiples = numbers('multipleOf')
  const multipleOf = multiples.reduce<number | undefined>(
    (before, next) => (before === undefined ? next : commonMultiple(before, next)),
    undefined,
  )
  if (multipleOf !== undefined && Number.isInteger(multipleOf)) allowed.delete('fraction')
  const listed = nodes.flatMap(({ schema }) => listedValuesOf(schema as SchemaObject))
  const [values, areSure] = narrow(listed, nodes)
  if (values !== undefined) {
    const given = new Set(values.map(kindOf))
    for (const kind of kinds) if (!given.has(kind)) allowed.delete(kind)
  }
  if (allowed.size === 0) return undefined
  const arrays = schemas.filter((schema) => Array.isArray(schema['prefixItems']) || schema['items'] === false)
  const ends = arrays.flatMap((schema) => {
    const prefix = listOf(schema['prefixItems'])
    const end = prefix.indexOf(false)
    return [...(end === -1 ? [] : [end]), ...(schema['items'] === false ? [prefix.length] : [])]
  })
  return {
    key: sidesOf(nodes),
    nodes,
    holds: new Set(holds.keys()),
    loose: areSure && (multiples.length < 2 || multipleOf !== undefined) ? loose : new Set(kinds),
    kinds: allowed,
    values,
    lower: tightest(numbers('minimum'), numbers('exclusiveMinimum'), 1),
    upper: tightest(numbers('maximum'), numbers('exclusiveMaximum'), -1),
    multipleOf,
    minLength: Math.max(0, ...numbers('minLength')),
    maxLength: Math.min(Number.POSITIVE_INFINITY, ...numbers('maxLength')),
    patterns: [...new Set(all('pattern').filter((pattern) => typeof pattern === 'string'))],
    formats: [...new Set(all('format').filter((format) => typeof format === 'string'))],
    minItems: Math.max(0, ...numbers('minItems')),
    maxItems: Math.min(Number.POSITIVE_INFINITY, ...numbers('maxItems'), ...ends),
    hasUniqueItems: all('uniqueItems').includes(true),
    minProperties: Math.max(0, ...numbers('minProperties')),
    maxProperties: Math.min(Number.POSITIVE_INFINITY, ...numbers('maxProperties')),
    required: requiredOf(schemas),
  }
}

function kindsOfType(type: unknown): ReadonlySet<Kind> {
  return new Set(
    [type].flat().flatMap((one): Kind[] => (one === 'number' ? ['integer', 'fraction'] : [one as Kind])),
  )
}

function listedValuesOf(schema: SchemaObject): (readonly unknown[])[] {
  const values: (readonly unknown[])[] = []
  if (Object.hasOwn(schema, 'const')) values.push([schema['const']])
  if (Array.isArray(schema['enum'])) values.push(schema['enum'] as unknown[])
  return values
}

/** The listed values that fit everything else, and whether each of them is known to fit. */
function narrow(
  listed: readonly (readonly unknown[])[],
  nodes: readonly SchemaNode[],
): [readonly unknown[] | undefined, boolean] {
  const [shortest] = listed.toSorted((a, b) => a.length - b.length)
  if (shortest === undefined) return [undefined, true]
  let areSure = true
  const unique = [...new Map(shortest.map((value) => [canonical(value), value])).values()]
  const values = unique.filter((value) => {
    const answers = nodes.map((node) => accepts(node, value))
    if (answers.includes(undefined) && !answers.includes(false)) areSure = false
    return !answers.includes(false)
  })
  return [values, areSure]
}

function tightest(inclusive: readonly number[], exclusive: readonly number[], sign: 1 | -1): Bound {
  const bounds = [
    { value: -sign * Number.POSITIVE_INFINITY, isExclusive: false },
    ...inclusive.map((value) => ({ value, isExclusive: false })),
    ...exclusive.map((value) => ({ value, isExclusive: true })),
  ]
  return bounds.reduce((a, b) =>
    b.value * sign > a.value * sign || (b.value === a.value && b.isExclusive) ? b : a,
  )
}

/** The effective bounds of the numbers of one kind. */
export function boundsOf(shape: Shape, kind: Kind): { readonly lower: Bound; readonly upper: Bound } {
  const { lower, upper, multipleOf } = shape
  const step =
    kind === 'integer'
      ? multipleOf === undefined
        ? 1
        : (commonMultiple(1, multipleOf) ?? multipleOf)
      : multipleOf
  if (step === undefined || step <= 0) return { lower, upper }
  return { lower: stepped(lower, step, 1), upper: stepped(upper, step, -1) }
}

function stepped({ value, isExclusive }: Bound, step: number, sign: 1 | -1): Bound {
  if (!Number.isFinite(value)) return { value, isExclusive }
  const next = sign * nextMultiple(sign * value, step)
  return { value: isExclusive && next === value ? next + sign * step : next, isExclusive: false }
}

function requiredOf(schemas: readonly SchemaObject[]): ReadonlySet<string> {
  const required = new Set(schemas.flatMap((schema) => textsOf(schema['required'])))
  const dependents = schemas.flatMap((schema) => entriesOf(schema['dependentRequired']))
  for (const name of required)
    for (const [other, needed] of dependents)
      if (other === name) for (const next of textsOf(needed)) required.add(next)
  return required
}

/** The values of a part, if there are few enough to test one by one. */
export function valuesOf({ shape, kind }: Part): readonly unknown[] | undefined {
  if (shape.values !== undefined) return shape.values.filter((value) => kindOf(value) === kind)
  if (kind === 'null') return [null]
  return kind === 'boolean' ? [true, false] : undefined
}

/** Equal schemas that are both read or both written have equal results. */
export function sidesOf(nodes: readonly SchemaNode[]): string {
  const [only, another] = nodes
  if (only !== undefined && another === undefined) return sideOf(only)
  return [...new Set(nodes.map(sideOf))].toSorted().join(' ')
}

function sideOf({ key, document }: SchemaNode): string {
  return document.isReader ? `${key}r` : key
}
