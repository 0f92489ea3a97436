import { canonical } from './canonical.ts'
import { itemNodes, maxNameCount, mayBeNamed, propertyNodes } from './contents.ts'
import {
  entriesOf,
  isObject,
  listOf,
  textsOf,
  TooComplex,
  type SchemaNode,
  type SchemaObject,
} from './document.ts'
import { patternAround } from './formats.ts'
import { literalsOf } from './literals.ts'
import { isNoText } from './pattern-inclusion.ts'
import {
  boundsOf,
  kindOf,
  kinds,
  listedValues,
  sidesOf,
  toShape,
  type Kind,
  type Part,
  type Shape,
  type ShapeSource,
} from './shape.ts'

const maxShapes = 2000

const none: ReadonlySet<Kind> = new Set()
const every: ReadonlySet<Kind> = new Set(kinds)

/** Keywords that the shapes of a schema do not capture completely, and the kinds of values that they apply to. */
const looseKeywords: readonly (readonly [string, ReadonlySet<Kind>])[] = [
  ['not', every],
  ['dependencies', every],
  ['contains', new Set(['array'])],
  ['unevaluatedItems', new Set(['array'])],
  ['dependentSchemas', new Set(['object'])],
  ['unevaluatedProperties', new Set(['object'])],
]

function looseKinds(schema: SchemaObject, before: ReadonlySet<Kind>): ReadonlySet<Kind> {
  const found = looseKeywords.filter(([keyword]) => schema[keyword] !== undefined).map(([, about]) => about)
  // Several patterns may match one name.
  if (entriesOf(schema['patternProperties']).length > 1) found.push(new Set(['object']))
  return found.length === 0 ? before : new Set([before, ...found].flatMap((about) => [...about]))
}

const leading = new Set(
  ['$ref', 'allOf', 'anyOf', '$defs', 'definitions', '$id', '$schema', '$anchor', '$dynamicAnchor'].concat([
    '$comment',
    'title',
    'description',
    'default',
    'examples',
    'deprecated',
    'readOnly',
    'writeOnly',
  ]),
)

/** Whether no value fits, as valibot expresses `never`. */
function excludesAll({ not }: SchemaObject): boolean {
  return not === true || (isObject(not) && Object.keys(not).length === 0)
}

/** Whether a schema states nothing except which other schemas must fit. */
function isLeading(schema: SchemaObject): boolean {
  return Object.keys(schema).every((keyword) => leading.has(keyword))
}

interface Draft extends ShapeSource {
  readonly pending: readonly SchemaNode[]
}

/** Derives the shapes of schemas, and caches them. */
export class Shapes {
  readonly #known = new Map<string, readonly Shape[]>()
  readonly #parts = new Map<string, readonly Part[]>()
  readonly #apart = new Map<string, boolean>()
  readonly #emptyTexts = new Map<string, boolean>()
  readonly #tags = new Map<string, ReadonlyMap<string, ReadonlySet<string>>>()

  /** The alternatives of the values that fit all of some schemas; empty if visibly no value does. */
  of(nodes: readonly SchemaNode[]): readonly Shape[] {
    const key = sidesOf(nodes)
    let shapes = this.#known.get(key)
    if (shapes === undefined) {
      shapes = this.#drafts(nodes).flatMap((draft) => toShape(draft) ?? [])
      this.#known.set(key, shapes)
    }
    return shapes
  }

  /** The same, by kind of value. */
  partsOf(nodes: readonly SchemaNode[]): readonly Part[] {
    const key = sidesOf(nodes)
    let parts = this.#parts.get(key)
    if (parts === undefined) {
      parts = this.of(nodes).flatMap((shape) =>
        [...shape.kinds].map((kind) => ({ shape, kind })).filter((part) => !this.isEmpty(part)),
      )
      this.#parts.set(key, parts)
    }
    return parts
  }

  /** Whether no value fits all of some schemas. True only if that is certain. */
  isNothing(nodes: readonly SchemaNode[], depth = 3): boolean {
    return this.of(nodes).every((shape) =>
      [...shape.kinds].every((kind) => this.isEmpty({ shape, kind }, depth)),
    )
  }

  /** Whether a part has no value. True only if that is certain. */
  isEmpty({ shape, kind }: Part, depth = 3): boolean {
    if (shape.values !== undefined) return !shape.values.some((value) => kindOf(value) === kind)
    switch (kind) {
      case 'integer':
      case 'fraction': {
        const { lower, upper } = boundsOf(shape, kind)
        const isPoint = lower.value === upper.value
        const isPointLess =
          lower.isExclusive || upper.isExclusive || Number.isInteger(lower.value) !== (kind === 'integer')
        return lower.value > upper.value || (isPoint && isPointLess)
      }
      case 'string':
        return this.#isTextEmpty(shape)
      case 'array':
        return (
          shape.minItems > shape.maxItems ||
          (depth > 0 &&
            Array.from({ length: Math.min(shape.minItems, 20) }).some((_, index) =>
              this.isNothing(itemNodes(shape, index), depth - 1),
            ))
        )
      case 'object':
        return (
          shape.minProperties > Math.min(shape.maxProperties, maxNameCount(shape)) ||
          shape.required.size > shape.maxProperties ||
          [...shape.required].some(
            (name) =>
              !mayBeNamed(shape, name) ||
              (depth > 0 && this.isNothing(propertyNodes(shape, name), depth - 1)),
          )
        )
      default:
        return false
    }
  }

  #isTextEmpty({ key, minLength, maxLength, patterns, formats }: Shape): boolean {
    if (minLength > maxLength) return true
    if (patterns.length + formats.length === 0) return false
    let isEmpty = this.#emptyTexts.get(key)
    if (isEmpty === undefined) {
      const around = formats.flatMap((format) => patternAround(format) ?? [])
      isEmpty = isNoText({ patterns: [...patterns, ...around], minLength, maxLength })
      this.#emptyTexts.set(key, isEmpty)
    }
    return isEmpty
  }

  #drafts(nodes: readonly SchemaNode[]): readonly Draft[] {
    const done: Draft[] = []
    const left: Draft[] = [{ nodes: [], holds: new Map(), loose: none, pending: nodes }]
    for (let draft = left.pop(); draft !== undefined; draft = left.pop()) {
      const [node, ...pending] = draft.pending
      if (node === undefined) {
        done.push(draft)
        continue
      }
      if (done.length + left.length > maxShapes) throw new TooComplex()
      if (node.schema === true || draft.holds.has(node.key)) left.push({ ...draft, pending })
      else if (node.schema !== false && !excludesAll(node.schema))
        left.push(...this.#expand({ ...draft, pending }, node, node.schema))
    }
    return done
  }

  /** What a schema adds to a draft: itself, everything that it requires, and each alternative that it offers. */
  #expand(draft: Draft, node: SchemaNode, schema: SchemaObject): readonly Draft[] {
    const { document } = node
    const parts = listOf(schema['allOf']).map((part) => document.nodeOf(part))
    let loose = looseKinds(schema, draft.loose)
    let leads = isLeading(schema)
    for (const keyword of ['$ref', '$dynamicRef', '$recursiveRef']) {
      const reference = schema[keyword]
      if (typeof reference !== 'string') continue
      const target = document.resolve(node, keyword, reference)
      if (target !== undefined) parts.push(target)
      if (target !== undefined && target.key !== node.key && !draft.holds.has(target.key)) continue
      loose = every
      leads = false
    }
    let drafts: readonly Draft[] = [
      {
        nodes: leads ? draft.nodes : [...draft.nodes, node],
        holds: new Map(draft.holds).set(node.key, node),
        loose,
        pending: [...parts, ...draft.pending],
      },
    ]
    const choose = (choices: readonly SchemaNode[], isExact: boolean): void => {
      drafts = drafts.flatMap((one) =>
        choices.map((choice) => ({
          ...one,
          loose: isExact ? one.loose : every,
          pending: [choice, ...one.pending],
        })),
      )
      if (drafts.length > maxShapes) throw new TooComplex()
    }
    for (const keyword of ['anyOf', 'oneOf']) {
      const listed = schema[keyword]
      if (!Array.isArray(listed)) continue
      const { values, others, areDistinct } = literalsOf(listed)
      const choices = others.map((part) => document.nodeOf(part))
      if (values.length > 0) choices.push(document.added({ enum: values }))
      choose(choices, keyword === 'anyOf' || (areDistinct && this.areApart(choices)))
    }
    if (schema['if'] !== undefined && (schema['then'] !== undefined || schema['else'] !== undefined)) {
      const [condition, then, otherwise] = [schema['if'], schema['then'] ?? true, schema['else'] ?? true]
      drafts = drafts.flatMap((one) => [
        {
          ...one,
          pending: [document.nodeOf(condition), document.nodeOf(then), ...one.pending],
        },
        { ...one, loose: every, pending: [document.nodeOf(otherwise), ...one.pending] },
      ])
    }
    return drafts
  }

  /** Whether no value fits two of some schemas. True only if that is certain. */
  areApart(nodes: readonly SchemaNode[]): boolean {
    const key = sidesOf(nodes)
    const known = this.#apart.get(key)
    if (known !== undefined || nodes.length > 200) return known ?? false
    // If a recursive schema asks again during the computation, the answer is uncertain.
    this.#apart.set(key, false)
    const areApart = nodes.every((node, index) =>
      nodes.slice(index + 1).every((other) => this.areDisjoint([node], other)),
    )
    this.#apart.set(key, areApart)
    return areApart
  }

  /** Whether no value, or no value of a kind, fits both some schemas and another. True only if that is certain. */
  areDisjoint(nodes: readonly SchemaNode[], other: SchemaNode, kind?: Kind): boolean {
    if (this.haveOtherTags(nodes, other)) return true
    const both = [...nodes, other]
    if (kind === undefined) return this.isNothing(both)
    return this.of(both).every((shape) => !shape.kinds.has(kind) || this.isEmpty({ shape, kind }))
  }

  /** Whether a required property has different values in one schema than in some others. */
  haveOtherTags(nodes: readonly SchemaNode[], other: SchemaNode): boolean {
    const tags = nodes.map((node) => this.tagsOf(node)).filter(({ size }) => size > 0)
    return [...this.tagsOf(other)].some(([name, values]) =>
      tags.some((tag) => {
        const own = tag.get(name)
        return own !== undefined && ![...values].some((value) => own.has(value))
      }),
    )
  }

  /** The listed values of required properties: a fast way to tell schemas apart. */
  tagsOf(node: SchemaNode): ReadonlyMap<string, ReadonlySet<string>> {
    let tags = this.#tags.get(node.key)
    if (tags === undefined) {
      tags = new Map(this.#findTags(node, 0))
      this.#tags.set(node.key, tags)
    }
    return tags
  }

  #findTags(node: SchemaNode, depth: number): [string, ReadonlySet<string>][] {
    const { schema, document } = node
    if (typeof schema === 'boolean' || schema['type'] !== 'object' || depth > 5) {
      const target =
        typeof schema !== 'boolean' && typeof schema['$ref'] === 'string' && depth <= 5
          ? document.resolve(node, '$ref', schema['$ref'])
          : undefined
      return target === undefined ? [] : this.#findTags(target, depth + 1)
    }
    const required = new Set(textsOf(schema['required']))
    return entriesOf(schema['properties']).flatMap(([name, property]) => {
      const values = required.has(name) ? listedValues(property) : undefined
      return values === undefined ? [] : [[name, new Set(values.map(canonical))]]
    })
  }
}
