import { listOf, type SchemaNode, type SchemaObject } from './document.ts'
import { unmet, type Need } from './needs.ts'
import { changed } from './scalar-needs.ts'
import { itemNodes } from './contents.ts'
import { type Part } from './shape.ts'
import { type Shapes } from './shapes.ts'

/** What must hold so that an array fits. */
export function arrayNeeds(
  shapes: Shapes,
  part: Part,
  to: SchemaNode,
  schema: SchemaObject,
): readonly Need[] {
  const { shape } = part
  const { document } = to
  const needs: Need[] = []
  const { minItems, maxItems, uniqueItems, contains, unevaluatedItems } = schema
  if (typeof minItems === 'number' && minItems > shape.minItems)
    needs.push(
      unmet('bounds', changed('minItems', minItems, shape.minItems === 0 ? undefined : shape.minItems)),
    )
  if (typeof maxItems === 'number' && maxItems < shape.maxItems) {
    const before = Number.isFinite(shape.maxItems) ? shape.maxItems : undefined
    needs.push(unmet('bounds', changed('maxItems', maxItems, before)))
  }
  const prefix = listOf(schema['prefixItems'])
  const prefixLength = prefixLengthOf(part, prefix)
  if (uniqueItems === true && !shape.hasUniqueItems && shape.maxItems > 1)
    needs.push(unmet('format', changed('uniqueItems', true, undefined), { decides: prefixLength === 0 }))
  const fit = (index: number, step: string, target: unknown, decides: boolean): void => {
    if (target === undefined || target === true || shape.maxItems <= index) return
    const parts = shapes.partsOf(itemNodes(shape, index))
    if (parts.length > 0) needs.push({ kind: 'fit', decides, step, parts, to: document.nodeOf(target) })
  }
  for (let index = 0; index < prefixLength; index += 1)
    fit(index, String(index), prefix[index] ?? schema['items'], true)
  fit(prefixLength, '*', schema['items'], true)
  // Which items other parts of the schema have evaluated is not known here.
  if (schema['items'] === undefined)
    for (let index = prefix.length; index <= prefixLength; index += 1)
      fit(index, index === prefixLength ? '*' : String(index), unevaluatedItems, false)
  if (contains !== undefined) needs.push(...containsNeeds(shapes, part, to, schema, prefixLength))
  return needs
}

/** After this length all items are alike, on both sides. */
function prefixLengthOf({ shape }: Part, prefix: readonly unknown[]): number {
  return Math.max(
    prefix.length,
    ...shape.nodes.map(({ schema }) =>
      typeof schema === 'boolean' ? 0 : listOf(schema['prefixItems']).length,
    ),
  )
}

function containsNeeds(
  shapes: Shapes,
  part: Part,
  { document }: SchemaNode,
  schema: SchemaObject,
  prefixLength: number,
): readonly Need[] {
  const { shape } = part
  const contained = document.nodeOf(schema['contains'])
  const [min, max] = [
    Number(schema['minContains'] ?? 1),
    Number(schema['maxContains'] ?? Number.POSITIVE_INFINITY),
  ]
  const counted = shape.nodes.flatMap(({ schema: own, document: from }) =>
    typeof own !== 'boolean' &&
    own['contains'] !== undefined &&
    from.nodeOf(own['contains']).key === contained.key
      ? [
          {
            min: Number(own['minContains'] ?? 1),
            max: Number(own['maxContains'] ?? Number.POSITIVE_INFINITY),
          },
        ]
      : [],
  )
  const needs: Need[] = []
  if (min > 0 && !counted.some((given) => given.min >= min)) {
    // Sufficient if every item that must be present fits.
    if (shape.minItems < min)
      needs.push(unmet('bounds', changed('contains', schema['contains'], undefined), { decides: false }))
    else
      for (let index = 0; index <= Math.min(prefixLength, shape.maxItems - 1); index += 1) {
        const parts = shapes.partsOf(itemNodes(shape, index))
        const step = index === prefixLength ? '*' : String(index)
        if (parts.length > 0) needs.push({ kind: 'fit', decides: false, step, parts, to: contained })
      }
  }
  if (Number.isFinite(max) && shape.maxItems > max && !counted.some((given) => given.max <= max))
    needs.push(unmet('bounds', changed('maxContains', max, counted[0]?.max), { decides: false }))
  return needs
}
