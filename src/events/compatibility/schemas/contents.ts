import { accepts, matches } from './accepts.ts'
import { entriesOf, isObject, listOf, type SchemaNode, type SchemaObject } from './document.ts'
import type { Shape } from './shape.ts'

/** The schemas that an item of an array must fit. */
export function itemNodes({ nodes }: Pick<Shape, 'nodes'>, index: number): readonly SchemaNode[] {
  return nodes.flatMap(({ schema, document }) => {
    if (typeof schema === 'boolean') return []
    const item = listOf(schema['prefixItems'])[index] ?? schema['items']
    return item === undefined ? [] : document.nodeOf(item)
  })
}

/**
 * The schemas that a property must fit. An empty list allows anything.
 *
 * @param name - undefined for a name that no schema mentions and no pattern matches
 */
export function propertyNodes(
  { nodes }: Pick<Shape, 'nodes'>,
  name: string | undefined,
): readonly SchemaNode[] {
  const found: SchemaNode[] = []
  let isNamed = false
  for (const { schema, document } of nodes) {
    if (typeof schema === 'boolean') continue
    const own = name === undefined ? [] : namedParts(schema, name)
    if (own === undefined) continue
    isNamed ||= own.length > 0
    const others = schema['additionalProperties']
    if (own.length > 0) found.push(...own.map((part) => document.nodeOf(part)))
    else if (others !== undefined && !(others === false && document.isReader)) {
      isNamed = true
      found.push(document.nodeOf(others))
    }
  }
  if (isNamed) return found
  return nodes.flatMap(({ schema, document }) => {
    const others = typeof schema === 'boolean' ? undefined : schema['unevaluatedProperties']
    return others === undefined || (others === false && document.isReader) ? [] : [document.nodeOf(others)]
  })
}

/** What a schema states about a property of this name. Undefined if one of its patterns cannot be read. */
export function namedParts(schema: SchemaObject, name: string): readonly unknown[] | undefined {
  const { properties } = schema
  const parts: unknown[] = []
  if (isObject(properties) && Object.hasOwn(properties, name)) parts.push(properties[name])
  for (const [pattern, part] of entriesOf(schema['patternProperties'])) {
    const answer = matches(pattern, name)
    if (answer === undefined) return undefined
    if (answer) parts.push(part)
  }
  return parts
}

/** Whether the schemas of a shape allow a name. */
export function mayBeNamed(shape: Pick<Shape, 'nodes'>, name: string): boolean {
  return nameNodes(shape).every((node) => accepts(node, name) !== false)
}

/** The schemas that property names must fit. */
export function nameNodes({ nodes }: Pick<Shape, 'nodes'>): readonly SchemaNode[] {
  return nodes.flatMap(({ schema, document }) =>
    typeof schema === 'boolean' || schema['propertyNames'] === undefined
      ? []
      : [document.nodeOf(schema['propertyNames'])],
  )
}

/** The maximum number of properties. */
export function maxNameCount({ nodes }: Pick<Shape, 'nodes'>): number {
  const counts = nodes.flatMap(({ schema, document }) =>
    typeof schema === 'boolean' ||
    document.isReader ||
    schema['additionalProperties'] !== false ||
    entriesOf(schema['patternProperties']).length > 0
      ? []
      : [entriesOf(schema['properties']).length],
  )
  return Math.min(Number.POSITIVE_INFINITY, ...counts)
}
