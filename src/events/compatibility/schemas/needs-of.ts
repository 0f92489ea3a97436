import { accepts } from './accepts.ts'
import { arrayNeeds } from './array-needs.ts'
import { choiceNeeds } from './choice-needs.ts'
import { canonical } from './canonical.ts'
import { listOf, type SchemaNode, type SchemaObject } from './document.ts'
import { anyOfList, unmet, type Need } from './needs.ts'
import { objectNeeds } from './object-needs.ts'
import { fitsAll } from './samples.ts'
import { numberNeeds, textNeeds } from './scalar-needs.ts'
import { boundsOf, listedValues, valuesOf, type Kind, type Part } from './shape.ts'
import type { Shapes } from './shapes.ts'
import { article, isAnything, list, typeName, typesOfKinds } from './wording.ts'

/** What must hold so that every value of a part fits a schema. */
export function needsOf(shapes: Shapes, part: Part, to: SchemaNode): readonly Need[] {
  const { schema, document } = to
  if (schema === true || part.shape.holds.has(to.key)) return []
  if (schema === false) return [unmet('type', 'is present, but nothing is allowed')]
  // Problems of a definition are reported at the definition, wherever it is referenced.
  if (typeof schema['$ref'] === 'string' && Object.keys(schema).length === 1) {
    const target = document.resolve(to, '$ref', schema['$ref'])
    if (target !== undefined && target !== to)
      return [{ kind: 'fit', decides: true, parts: [part], to: target, isReference: true }]
  }
  const wrong = typeNeed(shapes, part, to)
  if (wrong !== undefined) return [wrong]
  const values = valuesOf(part)
  if (values !== undefined) return valueNeeds(values, to)
  const listed = listedValues(schema)
  if (listed !== undefined) return listNeeds(part, to, listed)
  const all = listOf(schema['allOf']).map((target) => document.nodeOf(target))
  const needs: Need[] = []
  for (const keyword of ['$ref', '$dynamicRef', '$recursiveRef']) {
    const reference = schema[keyword]
    if (typeof reference !== 'string') continue
    const target = document.resolve(to, keyword, reference)
    if (target === undefined)
      needs.push(
        unmet('values', 'refers to a definition that the schema does not contain', { decides: false }),
      )
    else needs.push({ kind: 'fit', decides: true, parts: [part], to: target, isReference: true })
  }
  needs.push(...all.map((target): Need => ({ kind: 'fit', decides: true, parts: [part], to: target })))
  needs.push(...choiceNeeds(shapes, part, to, schema), ...conditionNeeds(shapes, part, to, schema))
  if (schema['dependencies'] !== undefined)
    needs.push(unmet('values', '`dependencies` is not compared', { decides: false }))
  return [...needs, ...kindNeeds(shapes, part, to, schema)]
}

function kindNeeds(shapes: Shapes, part: Part, to: SchemaNode, schema: SchemaObject): readonly Need[] {
  switch (part.kind) {
    case 'integer':
    case 'fraction':
      return numberNeeds(part, schema)
    case 'string':
      return textNeeds(part, to, schema)
    case 'array':
      return arrayNeeds(shapes, part, to, schema)
    case 'object':
      return objectNeeds(shapes, part, to, schema)
    default:
      return []
  }
}

/** If a schema accepts no value of a kind. */
function typeNeed(shapes: Shapes, part: Part, to: SchemaNode): Need | undefined {
  const allowed = new Set<Kind>(shapes.partsOf([to]).map(({ kind }) => kind))
  if (allowed.has(part.kind)) return undefined
  if (allowed.size === 0) return unmet('type', 'is present, but nothing is allowed')
  const given = isAnything(part.shape) ? 'may be anything' : `is ${article(typeName(part))}`
  const types = typesOfKinds(allowed)
  return unmet(
    'type',
    `${given}, only ${types.map(article).join(' or ')} ${types.length === 1 ? 'fits' : 'fit'}`,
  )
}

function valueNeeds(values: readonly unknown[], to: SchemaNode): readonly Need[] {
  const answers = values.map((value) => ({ value, answer: accepts(to, value) }))
  const refused = answers.filter(({ answer }) => answer === false).map(({ value }) => value)
  const unsure = answers.filter(({ answer }) => answer === undefined).map(({ value }) => value)
  return [
    ...(refused.length === 0 ? [] : [unmet('values', `${list(refused)} does not fit`)]),
    ...(unsure.length === 0 ? [] : [unmet('values', `${list(unsure)} may not fit`, { decides: false })]),
  ]
}

/** A range with more integers than this is not tested one by one. */
const maxTried = 300

function listNeeds(part: Part, to: SchemaNode, listed: readonly unknown[]): readonly Need[] {
  const { lower, upper } = boundsOf(part.shape, part.kind)
  if (part.kind === 'integer' && upper.value - lower.value <= maxTried) {
    const step = part.shape.multipleOf ?? 1
    const values = Array.from({ length: Math.floor((upper.value - lower.value) / step) + 1 }, (_, index) => lower.value + index * step) // prettier-ignore
    return valueNeeds(
      values.filter((value) => fitsAll(part.shape.nodes, value) !== false),
      to,
    )
  }
  return [anyOfList(part, listed, false)]
}

function conditionNeeds(shapes: Shapes, part: Part, to: SchemaNode, schema: SchemaObject): readonly Need[] {
  const { document } = to
  const { nodes } = part.shape
  const needs: Need[] = []
  if (schema['not'] !== undefined) {
    const excluded = document.nodeOf(schema['not'])
    if (!isExcluded(shapes, part, excluded))
      needs.push(
        unmet('values', `may be what \`not\` excludes: ${list([schema['not']])}`, { decides: false }),
      )
  }
  if (schema['if'] === undefined) return needs
  const condition = document.nodeOf(schema['if'])
  // Below `if`, a reader must not ignore what the schema does not name, because that may decide.
  const isStrict = /"(?:additional|unevaluated)Properties":false/.test(canonical(schema['if']))
  if (shapes.areDisjoint(nodes, condition, part.kind)) {
    if (schema['else'] !== undefined)
      needs.push({ kind: 'fit', decides: true, parts: [part], to: document.nodeOf(schema['else']) })
    return needs
  }
  if (schema['then'] !== undefined) {
    const parts = shapes.partsOf([...nodes, condition]).filter(({ kind }) => kind === part.kind)
    needs.push({ kind: 'fit', decides: !isStrict, parts, to: document.nodeOf(schema['then']) })
  }
  if (schema['else'] !== undefined) {
    const otherwise = document.nodeOf(schema['else'])
    needs.push({
      kind: 'choice',
      decides: () => false,
      part,
      to,
      alternatives: isStrict ? [otherwise] : [condition, otherwise],
      split: () => undefined,
      otherwise: () => unmet('values', 'may fit neither `if` nor `else`', { decides: false }),
    })
  }
  return needs
}

function isExcluded(shapes: Shapes, part: Part, excluded: SchemaNode): boolean {
  const { nodes } = part.shape
  const isSame = nodes.some(
    ({ schema, document }) =>
      typeof schema !== 'boolean' &&
      schema['not'] !== undefined &&
      document.nodeOf(schema['not']).key === excluded.key,
  )
  if (isSame || shapes.areDisjoint(nodes, excluded, part.kind)) return true
  const parts = shapes.partsOf([excluded]).filter(({ kind }) => kind === part.kind)
  return parts.every((one) => valuesOf(one)?.every((value) => fitsAll(nodes, value) === false) === true)
}
