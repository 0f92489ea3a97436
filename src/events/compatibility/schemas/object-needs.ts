import { accepts, matches } from './accepts.ts'
import { entriesOf, isObject, textsOf, type SchemaNode, type SchemaObject } from './document.ts'
import { unmet, type Need } from './needs.ts'
import { isNoText } from './pattern-inclusion.ts'
import { changed } from './scalar-needs.ts'
import { mayBeNamed, namedParts, nameNodes, propertyNodes } from './contents.ts'
import { listedValues, type Part, type Shape } from './shape.ts'
import { type Shapes } from './shapes.ts'

/** Properties that the schemas of a shape do not name, if there may be some. */
interface Others {
  /** The pattern that their names match; undefined for the names that no pattern matches. */
  readonly pattern: string | undefined
  /** The patterns that their names are known not to match. */
  readonly excluded: readonly string[]
  readonly parts: readonly Part[]
}

/** What must hold so that an object fits. */
export function objectNeeds(
  shapes: Shapes,
  part: Part,
  to: SchemaNode,
  schema: SchemaObject,
): readonly Need[] {
  const { shape } = part
  const { document } = to
  const needs: Need[] = []
  const names = namesOf(shape)
  const others = othersOf(shapes, shape)
  const isClosed = others.length === 0

  /** What a property may be; empty if the property cannot be present. */
  const partsOf = (name: string): readonly Part[] => {
    const isKnown =
      names.has(name) ||
      others.some(({ pattern }) => pattern === undefined || matches(pattern, name) !== false)
    return isKnown && mayBeNamed(shape, name) ? shapes.partsOf(propertyNodes(shape, name)) : []
  }

  needs.push(...countNeeds(shape, schema, isClosed ? names.size : Number.POSITIVE_INFINITY))
  for (const name of textsOf(schema['required']))
    if (!shape.required.has(name)) {
      const decides = shape.minProperties <= shape.required.size
      needs.push(unmet('required', 'may be missing, but is required', { step: name, decides }))
    }

  const properties = isObject(schema['properties']) ? schema['properties'] : {}
  const { additionalProperties, unevaluatedProperties, propertyNames } = schema
  for (const name of new Set([...names, ...Object.keys(properties)])) {
    const own = namedParts(schema, name)
    const isNamed = own === undefined || own.length > 0
    const targets = isNamed
      ? (own ?? entriesOf(schema['patternProperties']).map(([, target]) => target))
      : additionalProperties === undefined
        ? [unevaluatedProperties]
        : [additionalProperties]
    const wanted = targets.filter(
      (target) => target !== undefined && target !== true && (isNamed || target !== false),
    )
    if (wanted.length === 0) continue
    const parts = partsOf(name)
    const decides = own !== undefined && (isNamed || additionalProperties !== undefined)
    for (const target of parts.length === 0 ? [] : wanted)
      needs.push({ kind: 'fit', decides, step: name, parts, to: document.nodeOf(target) })
  }
  needs.push(...others.flatMap((group) => otherNeeds(group, to, schema)))
  if (propertyNames !== undefined && propertyNames !== true)
    needs.push(...nameNeeds(shapes, part, document.nodeOf(propertyNames), [...names].filter((name) => partsOf(name).length > 0), others)) // prettier-ignore

  const dependent = [...entriesOf(schema['dependentRequired']), ...entriesOf(schema['dependentSchemas'])]
  for (const [name, needed] of dependent) {
    if (partsOf(name).length === 0) continue
    const given = shapes
      .partsOf([...shape.nodes, firstDocument(shape, to).added({ required: [name] })])
      .filter(({ kind }) => kind === 'object')
    if (Array.isArray(needed)) {
      for (const other of textsOf(needed))
        if (given.some((one) => !one.shape.required.has(other)))
          needs.push(
            unmet('required', `may be missing when \`${name}\` is present, but is required then`, {
              step: other,
            }),
          )
    } else needs.push({ kind: 'fit', decides: true, parts: given, to: document.nodeOf(needed) })
  }
  return needs
}

/** The property names that the schemas of a shape mention individually. */
function namesOf(shape: Shape): ReadonlySet<string> {
  const names = new Set(shape.required)
  for (const { schema } of shape.nodes) {
    if (typeof schema === 'boolean') continue
    for (const [name] of entriesOf(schema['properties'])) names.add(name)
    for (const name of listedValues(schema['propertyNames']) ?? [])
      if (typeof name === 'string') names.add(name)
  }
  return names
}

function firstDocument({ nodes }: Shape, to: SchemaNode): SchemaNode['document'] {
  return nodes[0]?.document ?? to.document
}

/**
 * What may be present besides the named properties. A schema that names properties and states nothing about additional
 * ones is assumed to have no others, because that is how libraries describe objects. A schema that states nothing about
 * any property may have all of them.
 */
function othersOf(shapes: Shapes, shape: Shape): readonly Others[] {
  const schemas = shape.nodes.flatMap(({ schema }) => (typeof schema === 'boolean' ? [] : [schema]))
  const says = (keyword: string): boolean => schemas.some((schema) => schema[keyword] !== undefined)
  const isOpen =
    says('additionalProperties') ||
    says('unevaluatedProperties') ||
    !(says('properties') || says('patternProperties'))
  const hasListedNames = schemas.some((schema) => listedValues(schema['propertyNames']) !== undefined)
  if (hasListedNames || shape.maxProperties === 0) return []
  const groups: Others[] = []
  const add = (
    pattern: string | undefined,
    excluded: readonly string[],
    nodes: readonly SchemaNode[],
  ): void => {
    const parts = shapes.partsOf(nodes)
    if (parts.length > 0) groups.push({ pattern, excluded, parts })
  }
  const open = schemas.filter((schema) => schema['additionalProperties'] !== undefined)
  const [excluded = []] = open.map((schema) =>
    entriesOf(schema['patternProperties']).map(([pattern]) => pattern),
  )
  if (isOpen) add(undefined, open.length === 1 ? excluded : [], propertyNodes(shape, undefined))
  for (const { schema, document } of shape.nodes)
    if (typeof schema !== 'boolean')
      for (const [pattern, target] of entriesOf(schema['patternProperties']))
        add(pattern, [], [document.nodeOf(target)])
  return groups
}

function otherNeeds(group: Others, to: SchemaNode, schema: SchemaObject): readonly Need[] {
  const { document } = to
  const { additionalProperties, unevaluatedProperties } = schema
  const patterns = entriesOf(schema['patternProperties'])
  const needs: Need[] = []
  const fit = (target: unknown, decides: boolean): void => {
    if (target !== undefined && target !== true)
      needs.push({ kind: 'fit', decides, step: '*', parts: group.parts, to: document.nodeOf(target) })
  }
  for (const [pattern, target] of patterns) {
    const isApart =
      group.excluded.includes(pattern) ||
      (group.pattern !== undefined &&
        group.pattern !== pattern &&
        isNoText({ patterns: [group.pattern, pattern], minLength: 0, maxLength: Number.POSITIVE_INFINITY }))
    if (!isApart)
      fit(target, group.pattern === pattern || (group.pattern === undefined && group.excluded.length === 0))
  }
  if (group.pattern !== undefined && patterns.some(([pattern]) => pattern === group.pattern)) return needs
  if (additionalProperties === undefined) {
    if (unevaluatedProperties !== false) fit(unevaluatedProperties, false)
  } else if (additionalProperties !== false) {
    fit(additionalProperties, patterns.length === 0)
  }
  return needs
}

function countNeeds(shape: Shape, schema: SchemaObject, nameCount: number): readonly Need[] {
  const { minProperties, maxProperties } = schema
  const needs: Need[] = []
  if (
    typeof minProperties === 'number' &&
    Math.max(shape.minProperties, shape.required.size) < minProperties
  ) {
    const before = shape.minProperties === 0 ? undefined : shape.minProperties
    needs.push(unmet('bounds', changed('minProperties', minProperties, before)))
  }
  if (typeof maxProperties === 'number' && Math.min(shape.maxProperties, nameCount) > maxProperties) {
    const before = Number.isFinite(shape.maxProperties) ? shape.maxProperties : undefined
    needs.push(unmet('bounds', changed('maxProperties', maxProperties, before)))
  }
  return needs
}

/** The path step that stands for the names of properties. */
const nameStep = '<name>'

function nameNeeds(
  shapes: Shapes,
  { shape }: Part,
  allowed: SchemaNode,
  names: readonly string[],
  others: readonly Others[],
): readonly Need[] {
  const needs: Need[] = []
  for (const name of names) {
    const answer = accepts(allowed, name)
    if (answer === true) continue
    needs.push(unmet('values', 'has a name that is not allowed', { step: name, decides: answer === false }))
  }
  for (const { pattern } of others) {
    const text = firstDocument(shape, allowed).added({
      type: 'string',
      ...(pattern === undefined ? {} : { pattern }),
    })
    const parts = shapes.partsOf([...nameNodes(shape), text])
    needs.push({ kind: 'fit', decides: true, step: nameStep, parts, to: allowed })
  }
  return needs
}
