import { accepts, all, type Answer } from './accepts.ts'
import { isObject, type SchemaNode } from './document.ts'
import { formatSamples, patternAround } from './formats.ts'
import { exampleOf } from './pattern-inclusion.ts'
import { itemNodes, propertyNodes } from './contents.ts'
import { boundsOf, sidesOf, type Kind, type Part, type Shape } from './shape.ts'
import type { Shapes } from './shapes.ts'

const maxDepth = 3

/** Finds values of schemas that prove that they do not fit other schemas. Finds not all values, and possibly none. */
export class Samples {
  readonly #shapes: Shapes
  readonly #known = new Map<string, readonly unknown[]>()

  constructor(shapes: Shapes) {
    this.#shapes = shapes
  }

  /** Whether a value was found that fits a part and does not fit a schema. */
  tellApart(part: Part, to: SchemaNode): boolean {
    return this.#of(part, 0).some((value) => accepts(to, value) === false)
  }

  #of(part: Part, depth: number): readonly unknown[] {
    const key = `${part.kind} ${depth} ${part.shape.key}`
    let samples = this.#known.get(key)
    if (samples === undefined) {
      samples = this.#candidates(part, depth).filter((value) => fitsAll(part.shape.nodes, value) === true)
      this.#known.set(key, samples)
    }
    return samples
  }

  #candidates({ shape, kind }: Part, depth: number): readonly unknown[] {
    if (shape.values !== undefined) return shape.values
    switch (kind) {
      case 'null':
        return [null]
      case 'boolean':
        return [true, false]
      case 'integer':
      case 'fraction':
        return numbers(shape, kind)
      case 'string':
        return texts(shape)
      case 'array':
        return this.#arrays(shape, depth)
      default:
        return this.#objects(shape, depth)
    }
  }

  #arrays(shape: Shape, depth: number): readonly unknown[] {
    const { minItems, maxItems } = shape
    const filled = (length: number): unknown[][] => {
      const items = Array.from({ length }, (_, index) => this.#inside(itemNodes(shape, index), depth))
      if (items.some((found) => found.length === 0)) return []
      return [0, 1].map((turn) => items.map((found, index) => found[(turn * (index + 1)) % found.length]))
    }
    const lengths = [minItems, minItems + 1, maxItems, 2].filter(
      (length) => length >= minItems && length <= maxItems && length <= 20,
    )
    const plain = [...new Set(lengths)].flatMap(filled)
    const contained = shape.nodes.flatMap(({ schema, document }) =>
      typeof schema === 'boolean' || schema['contains'] === undefined
        ? []
        : this.#inside([document.nodeOf(schema['contains'])], depth).slice(0, 2),
    )
    return [
      ...plain,
      ...contained.flatMap((first) => [[first], ...plain.map((items) => [first, ...items.slice(1)])]),
    ]
  }

  #objects(shape: Shape, depth: number): readonly unknown[] {
    const named = new Set<string>(shape.required)
    for (const { schema } of shape.nodes)
      if (typeof schema !== 'boolean' && isObject(schema['properties']))
        for (const name of Object.keys(schema['properties']).slice(0, 20)) named.add(name)
    const filled = (names: readonly string[], turn: number): unknown[] => {
      const entries: [string, unknown][] = []
      for (const name of names) {
        const found = this.#inside(propertyNodes(shape, name), depth)
        if (found.length > 0) entries.push([name, found[turn % found.length]])
        else if (shape.required.has(name)) return []
      }
      return [Object.fromEntries(entries)]
    }
    const required = [...shape.required]
    const single = [...named].slice(0, 5).map((name) => [...new Set([...required, name])])
    return [required, [...named], ...single].flatMap((names) =>
      [0, 1, 2].flatMap((turn) => filled(names, turn)),
    )
  }

  #inside(nodes: readonly SchemaNode[], depth: number): readonly unknown[] {
    if (depth >= maxDepth) return []
    const key = `${depth} ${sidesOf(nodes)}`
    let samples = this.#known.get(key)
    if (samples === undefined) {
      this.#known.set(key, [])
      samples = this.#shapes
        .partsOf(nodes)
        .slice(0, 8)
        .flatMap((part) => this.#of(part, depth + 1).slice(0, 3))
      this.#known.set(key, samples)
    }
    return samples
  }
}

/** Whether a value fits all of some schemas. */
export function fitsAll(nodes: readonly SchemaNode[], value: unknown): Answer {
  return all(nodes.map((node) => accepts(node, value)))
}

function numbers(shape: Shape, kind: Kind): readonly number[] {
  const { lower, upper } = boundsOf(shape, kind)
  const step = shape.multipleOf ?? 1
  const around = [lower.value, upper.value]
    .filter((value) => Number.isFinite(value))
    .flatMap((value) => [0, step, -step, step / 2, -step / 2, 0.5, 1e-9, -1e-9].map((more) => value + more))
  const hasMiddle = Number.isFinite(lower.value) && Number.isFinite(upper.value)
  return [
    ...around,
    ...(hasMiddle ? [(lower.value + upper.value) / 2] : []),
    ...[0, 1, 2, 3, 5, 7, -1, 0.5, 1.5, 0.1, 1.25, -0.5, 1e-9, 1e6, -1e6, step, 3 * step, -step],
  ].filter((value) => Number.isInteger(value) === (kind === 'integer'))
}

function texts(shape: Shape): readonly string[] {
  const { minLength, maxLength } = shape
  const patterns = [...shape.patterns, ...shape.formats.flatMap((format) => patternAround(format) ?? [])]
  const example = exampleOf({ patterns, minLength, maxLength })
  const lengths = [minLength, minLength + 1, maxLength].filter((length) => length > 0 && length < 10_000)
  return [
    ...['', 'a', '0', 'A', ' ', '-', 'zz', '\u00e9'],
    ...(example === undefined ? [] : [example]),
    ...lengths.flatMap((length) => ['a', '0', '~'].map((character) => character.repeat(length))),
    ...formatSamples,
  ]
}
