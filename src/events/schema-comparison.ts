import type { JsonSchema } from './json-schema.ts'

/** A way in which a value that fits one schema may not fit another. Constraints of schemas are named, never values of events. */
export interface Misfit {
  /** Dotted, `*` for the items of an array or the values of a record. Empty: the payload itself. */
  readonly path: string
  readonly rule: 'required' | 'type' | 'values' | 'bounds' | 'format' | 'unclear'
  readonly detail: string
}

type SchemaObject = Readonly<Record<string, unknown>>

interface Side {
  readonly root: SchemaObject
  readonly schema: SchemaObject
}

/** Deeper than this nothing is compared: schemas that refer to themselves in turns. */
const maxDepth = 64

/** Keywords that say something about values and are compared only for being the same. */
const opaqueKeywords = [
  'not',
  'if',
  'then',
  'else',
  'contains',
  'dependentRequired',
  'dependentSchemas',
  'patternProperties',
  'unevaluatedProperties',
  'unevaluatedItems',
]

/**
 * Why a value that fits `from` may not fit `to`; empty when each one does, as far as can be told. Properties that `to` does
 * not name are no misfit, whatever it says of additional ones: readers leave alone what they do not know.
 */
export function findMisfits(from: JsonSchema, to: JsonSchema): readonly Misfit[] {
  if (to === true || from === false) return []
  if (to === false) return [{ path: '', rule: 'type', detail: 'nothing is allowed' }]
  const source = from === true ? {} : from
  return compare({ root: source, schema: source }, { root: to, schema: to }, [], 0)
}

function compare(from: Side, to: Side, path: readonly string[], depth: number): readonly Misfit[] {
  const source = resolve(from)
  const wanted = resolve(to)
  if (source === undefined || wanted === undefined)
    return [misfit(path, 'unclear', 'refers to a definition that is not in the schema')]
  if (depth > maxDepth) return []
  const at = (schema: unknown, side: Side): Side => ({ root: side.root, schema: asObject(schema) })
  const fromBranches = branchesOf(source)
  if (fromBranches.length > 1)
    return unique(
      fromBranches.flatMap((branch) => compare(at(branch, from), at(wanted, to), path, depth + 1)),
    )
  const [only = source] = fromBranches
  const toBranches = branchesOf(wanted)
  if (toBranches.length > 1) {
    const attempts = toBranches.map((branch) => compare(at(only, from), at(branch, to), path, depth + 1))
    // The branch that was probably meant is the one that it nearly fits.
    return attempts.toSorted((a, b) => distance(a) - distance(b))[0] ?? []
  }
  const [target = wanted] = toBranches
  return compareSingle(at(only, from), at(target, to), path, depth)
}

function distance(misfits: readonly Misfit[]): number {
  return misfits.reduce((sum, { rule }) => sum + (rule === 'type' || rule === 'values' ? 100 : 1), 0)
}

function compareSingle(from: Side, to: Side, path: readonly string[], depth: number): readonly Misfit[] {
  const [a, b] = [from.schema, to.schema]
  const values = valuesOf(a)
  const allowed = choicesOf(b)
  if (allowed !== undefined) {
    if (values === undefined)
      return [misfit(path, 'values', `was any ${typeName(a)}, only ${list(allowed)} fit`)]
    const texts = new Set(allowed.map((value) => canonical(value)))
    const missing = values.filter((value) => !texts.has(canonical(value)))
    return missing.length === 0 ? [] : [misfit(path, 'values', `${list(missing)} does not fit`)]
  }
  const [type, wantedType] = [typeOf(a) ?? typeOfValues(values), typeOf(b)]
  if (wantedType !== undefined) {
    if (type === undefined && !mayBeAnyOf(a, wantedType))
      return [misfit(path, 'type', `may be anything, only ${article(wantedType)} fits`)]
    if (type !== undefined && type !== wantedType && !(type === 'integer' && wantedType === 'number'))
      return [misfit(path, 'type', `is ${article(type)}, only ${article(wantedType)} fits`)]
  }
  return [
    ...opaqueKeywords
      .filter((keyword) => b[keyword] !== undefined && canonical(a[keyword]) !== canonical(b[keyword]))
      .map((keyword) => misfit(path, 'unclear', `\`${keyword}\` differs, which is not compared`)),
    ...compareObjects(from, to, path, depth),
    ...compareArrays(from, to, path, depth),
    ...(values === undefined ? compareBounds(a, b, path) : []),
  ]
}

function compareObjects(from: Side, to: Side, path: readonly string[], depth: number): readonly Misfit[] {
  const [a, b] = [from.schema, to.schema]
  const required = new Set(texts(a['required']))
  const found: Misfit[] = texts(b['required'])
    .filter((name) => !required.has(name))
    .map((name) => misfit([...path, name], 'required', 'may be missing, but is required'))
  const properties = asObject(a['properties'])
  const wanted = asObject(b['properties'])
  const others = (schema: SchemaObject): unknown => schema['additionalProperties']
  const goOn = (one: unknown, two: unknown, name: string): void => {
    if (one === false || two === true || two === undefined || two === false) return
    found.push(
      ...compare(
        { root: from.root, schema: one === true ? {} : asObject(one) },
        { root: to.root, schema: asObject(two) },
        [...path, name],
        depth + 1,
      ),
    )
  }
  for (const [name, schema] of Object.entries(wanted)) {
    if (Object.hasOwn(properties, name)) goOn(properties[name], schema, name)
    else if (typeof others(a) === 'object') goOn(others(a), schema, name)
  }
  if (typeof others(b) === 'object') {
    for (const [name, schema] of Object.entries(properties))
      if (!Object.hasOwn(wanted, name)) goOn(schema, others(b), name)
    if (a['properties'] === undefined || typeof others(a) === 'object')
      goOn(others(a) ?? true, others(b), '*')
  }
  return found
}

function compareArrays(from: Side, to: Side, path: readonly string[], depth: number): readonly Misfit[] {
  const [a, b] = [from.schema, to.schema]
  const [before, after] = [schemas(a['prefixItems']), schemas(b['prefixItems'])]
  const found: Misfit[] = []
  const goOn = (one: unknown, two: unknown, name: string): void => {
    if (one === false || two === undefined || two === true) return
    if (two === false) found.push(misfit([...path, name], 'bounds', 'may be there, but there may be none'))
    else
      found.push(
        ...compare(
          { root: from.root, schema: asObject(one) },
          { root: to.root, schema: asObject(two) },
          [...path, name],
          depth + 1,
        ),
      )
  }
  for (let i = 0; i < Math.max(before.length, after.length); i += 1)
    goOn(before[i] ?? a['items'], after[i] ?? b['items'], String(i))
  if (b['items'] !== undefined && !(a['items'] === undefined && before.length > 0))
    goOn(a['items'], b['items'], '*')
  return found
}

const lowerBounds = ['minimum', 'exclusiveMinimum', 'minLength', 'minItems', 'minProperties']
const upperBounds = ['maximum', 'exclusiveMaximum', 'maxLength', 'maxItems', 'maxProperties']

function compareBounds(a: SchemaObject, b: SchemaObject, path: readonly string[]): readonly Misfit[] {
  const found: Misfit[] = []
  const note = (keyword: string, rule: 'bounds' | 'format'): void => {
    const [one, two] = [a[keyword], b[keyword]]
    found.push(
      misfit(
        path,
        rule,
        `\`${keyword}\` is ${short(two)}, and was ${one === undefined ? 'not set' : short(one)}`,
      ),
    )
  }
  for (const [keywords, sign] of [
    [lowerBounds, 1],
    [upperBounds, -1],
  ] as const) {
    for (const keyword of keywords) {
      const wanted = b[keyword]
      if (typeof wanted !== 'number' || isSafeRange(wanted)) continue
      const given = a[keyword]
      if (typeof given !== 'number' || given * sign < wanted * sign) {
        if (!(keyword.startsWith('min') && wanted === 0)) note(keyword, 'bounds')
      }
    }
  }
  for (const keyword of ['pattern', 'format', 'multipleOf', 'uniqueItems', 'contentEncoding']) {
    const wanted = b[keyword]
    if (wanted !== undefined && wanted !== false && canonical(a[keyword]) !== canonical(wanted))
      note(keyword, 'format')
  }
  return found
}

/** What zod writes for any integer. */
function isSafeRange(bound: number): boolean {
  return Math.abs(bound) === Number.MAX_SAFE_INTEGER
}

/** Follows references, and takes what `allOf` says together. */
function resolve({ root, schema }: Side): SchemaObject | undefined {
  let current = schema
  for (let steps = 0; typeof current['$ref'] === 'string'; steps += 1) {
    const { $ref: ref, ...beside } = current
    const referred = steps > 50 ? undefined : lookUp(root, ref)
    if (referred === undefined) return undefined
    current = { ...referred, ...beside }
  }
  const parts = schemas(current['allOf'])
  if (parts.length === 0) return current
  const { allOf: _parts, ...rest } = current
  let merged: SchemaObject = rest
  for (const part of parts) {
    const resolved = resolve({ root, schema: asObject(part) })
    if (resolved === undefined) return undefined
    merged = {
      ...merged,
      ...resolved,
      properties: { ...asObject(merged['properties']), ...asObject(resolved['properties']) },
      required: [...texts(merged['required']), ...texts(resolved['required'])],
    }
  }
  return merged
}

function lookUp(root: SchemaObject, ref: string): SchemaObject | undefined {
  if (ref === '#') return root
  if (!ref.startsWith('#/')) return undefined
  let current: unknown = root
  for (const part of ref.slice(2).split('/')) {
    const key = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
    if (current === null || typeof current !== 'object' || !Object.hasOwn(current, key)) return undefined
    current = (current as SchemaObject)[key]
  }
  return current === true ? {} : asObject(current)
}

/** The schemas of which one has to fit; a single one where there is no choice. */
function branchesOf(schema: SchemaObject): readonly SchemaObject[] {
  for (const keyword of ['anyOf', 'oneOf']) {
    const choices = schemas(schema[keyword])
    if (choices.length > 0) {
      const { [keyword]: _choices, ...rest } = schema
      return choices.map((choice) => ({ ...rest, ...asObject(choice) }))
    }
  }
  if (Array.isArray(schema['type'])) return texts(schema['type']).map((type) => ({ ...schema, type }))
  return [schema]
}

function choicesOf(schema: SchemaObject): readonly unknown[] | undefined {
  if (Object.hasOwn(schema, 'const')) return [schema['const']]
  return Array.isArray(schema['enum']) ? (schema['enum'] as unknown[]) : undefined
}

function valuesOf(schema: SchemaObject): readonly unknown[] | undefined {
  const values = choicesOf(schema)
  if (values === undefined && schema['type'] === 'boolean') return [true, false]
  if (values === undefined && schema['type'] === 'null') return [null]
  return values
}

function typeOf(schema: SchemaObject): string | undefined {
  const { type } = schema
  if (typeof type === 'string') return type
  return schema['properties'] === undefined ? undefined : 'object'
}

function typeOfValues(values: readonly unknown[] | undefined): string | undefined {
  const types = new Set(values?.map((value) => (value === null ? 'null' : typeof value)))
  return types.size === 1 ? [...types][0] : undefined
}

/** An enumeration of several types: none of them may be another. */
function mayBeAnyOf(schema: SchemaObject, type: string): boolean {
  const values = valuesOf(schema)
  return values !== undefined && values.every((value) => typeof value === type)
}

function typeName(schema: SchemaObject): string {
  return typeOf(schema) ?? 'value'
}

function misfit(path: readonly string[], rule: Misfit['rule'], detail: string): Misfit {
  return { path: path.join('.'), rule, detail }
}

function unique(misfits: readonly Misfit[]): readonly Misfit[] {
  return [...new Map(misfits.map((one) => [canonical(one), one])).values()]
}

function asObject(value: unknown): SchemaObject {
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? (value as SchemaObject) : {}
}

function schemas(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : []
}

function texts(value: unknown): string[] {
  return schemas(value).filter((item) => typeof item === 'string')
}

function list(values: readonly unknown[]): string {
  const shown = values.slice(0, 5).map((value) => short(value))
  return values.length > 5 ? `${shown.join(', ')}, …` : shown.join(', ')
}

function short(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined'
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}

function article(type: string): string {
  if (type === 'null') return type
  return /^[aeio]/.test(type) ? `an ${type}` : `a ${type}`
}

/** The JSON text of a value, whatever the order of its keys. */
export function canonical(value: unknown): string {
  return (
    JSON.stringify(value, (_key, item: unknown) =>
      item !== null && typeof item === 'object' && !Array.isArray(item)
        ? Object.fromEntries(Object.entries(item).toSorted(([a], [b]) => (a < b ? -1 : 1)))
        : item,
    ) ?? 'undefined'
  )
}
