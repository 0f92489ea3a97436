import { canonical } from './canonical.ts'
import { listOf, type SchemaNode, type SchemaObject } from './document.ts'
import { propertyNodes } from './contents.ts'
import { literalsOf } from './literals.ts'
import { anyOfList, unmet, type Need } from './needs.ts'
import { valuesOf, type Part } from './shape.ts'
import type { Shapes } from './shapes.ts'
import { list } from './wording.ts'

/** An object is not split by a property with more values than this. */
const maxSplit = 256

/** What must hold so that the values of a part fit `anyOf` and `oneOf`. */
export function choiceNeeds(
  shapes: Shapes,
  part: Part,
  to: SchemaNode,
  schema: SchemaObject,
): readonly Need[] {
  return ['anyOf', 'oneOf'].flatMap((keyword) => {
    if (!Array.isArray(schema[keyword])) return []
    const { values, others, areDistinct } = literalsOf(listOf(schema[keyword]))
    const all = others.map((target) => to.document.nodeOf(target))
    if (values.length > 0) all.push(to.document.added({ enum: values }))
    const { holds, nodes } = part.shape
    if (keyword === 'anyOf' && all.some(({ key }) => holds.has(key))) return []
    const alternatives = all.filter((target) => !shapes.haveOtherTags(nodes, target))
    const possible = function* (): Generator<SchemaNode> {
      for (const target of alternatives) if (!shapes.areDisjoint(nodes, target, part.kind)) yield target
    }
    const needs: Need[] = [
      {
        kind: 'choice',
        part,
        to,
        alternatives,
        split: once(() => splitOf(shapes, part, alternatives)),
        decides: once(() => !hasSeveral(possible())),
        otherwise: () => noAlternative(shapes, part, all),
      },
    ]
    if (
      keyword === 'oneOf' &&
      all.length + values.length > 1 &&
      !(areDistinct && shapes.areApart(all)) &&
      hasSeveral(possible())
    )
      needs.push(unmet('values', 'may fit several alternatives of `oneOf`', { decides: false }))
    return needs
  })
}

function hasSeveral(items: Iterator<unknown>): boolean {
  items.next()
  return items.next().done !== true
}

/** Calls a function when its result is first needed, and remembers the result. */
function once<T>(find: () => T): () => T {
  let found: { readonly value: T } | undefined
  return () => {
    found ??= { value: find() }
    return found.value
  }
}

function noAlternative(
  shapes: Shapes,
  part: Part,
  all: readonly SchemaNode[],
): Extract<Need, { kind: 'unmet' }> {
  const parts = all.flatMap((target) => shapes.partsOf([target])).filter(({ kind }) => kind === part.kind)
  const values = parts.map(valuesOf)
  if (!values.includes(undefined))
    return anyOfList(
      part,
      values.flatMap((each) => each ?? []),
      true,
    )
  for (const name of tagNames(shapes, all)) {
    const given = listedAt(shapes, part, name)
    const allowed = new Set(all.flatMap((target) => [...(shapes.tagsOf(target).get(name) ?? [])]))
    if (given !== undefined && given.length > 0 && given.every((value) => !allowed.has(canonical(value))))
      return unmet('values', `${list(given)} does not fit`, { step: name })
  }
  return unmet('type', 'fits none of the alternatives')
}

/** The properties that may tell alternatives apart. */
function tagNames(shapes: Shapes, alternatives: readonly SchemaNode[]): ReadonlySet<string> {
  return new Set(alternatives.flatMap((target) => [...shapes.tagsOf(target).keys()]))
}

function listedAt(shapes: Shapes, { shape }: Part, name: string): readonly unknown[] | undefined {
  const nodes = propertyNodes(shape, name)
  if (nodes.length === 0) return undefined
  const values = shapes.partsOf(nodes).map(valuesOf)
  return values.includes(undefined) ? undefined : values.flatMap((each) => each ?? [])
}

/** Splits an object whose alternatives are told apart by a property with several values, into one part for each value. */
function splitOf(
  shapes: Shapes,
  part: Part,
  alternatives: readonly SchemaNode[],
): readonly Part[] | undefined {
  if (part.kind !== 'object' || alternatives.length < 2) return undefined
  for (const name of tagNames(shapes, alternatives)) {
    const values = listedAt(shapes, part, name)
    const isRequired = part.shape.required.has(name)
    if (values === undefined || values.length > maxSplit || values.length + (isRequired ? 0 : 1) < 2) continue
    const [first] = part.shape.nodes
    if (first === undefined) return undefined
    const split = values.map((value) => ({ properties: { [name]: { const: value } }, required: [name] }))
    const absent = isRequired ? [] : [{ properties: { [name]: false } }]
    return [...split, ...absent]
      .flatMap((schema) => shapes.partsOf([...part.shape.nodes, first.document.added(schema)]))
      .filter(({ kind }) => kind === 'object')
  }
  return undefined
}
