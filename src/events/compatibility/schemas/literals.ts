import { canonical } from './canonical.ts'
import { isObject } from './document.ts'
import { typesOf } from './types-of.ts'

/** The alternatives of a schema, with those that only list values collected. */
export interface Literals {
  readonly values: readonly unknown[]
  readonly texts: ReadonlySet<string>
  /** All other alternatives. */
  readonly others: readonly unknown[]
  /** Whether no value is listed twice. */
  readonly areDistinct: boolean
}

const known = new WeakMap<readonly unknown[], Literals>()

const listing = new Set([
  'const',
  'enum',
  'type',
  '$comment',
  'title',
  'description',
  'default',
  'examples',
  'deprecated',
])

/** Collects the alternatives that are `const` or `enum`: there may be thousands of them. */
export function literalsOf(alternatives: readonly unknown[]): Literals {
  let literals = known.get(alternatives)
  if (literals === undefined) {
    const found = alternatives.map(listedIn)
    const values = found.flatMap((listed) => listed ?? [])
    const texts = new Set(values.map(canonical))
    literals = {
      values,
      texts,
      others: alternatives.filter((_, index) => found[index] === undefined),
      areDistinct: texts.size === values.length,
    }
    known.set(alternatives, literals)
  }
  return literals
}

function listedIn(schema: unknown): readonly unknown[] | undefined {
  if (!isObject(schema) || !Object.keys(schema).every((keyword) => listing.has(keyword))) return undefined
  const { const: only, enum: listed, type } = schema
  if ((only === undefined) === (listed === undefined)) return undefined
  if (only === undefined && !Array.isArray(listed)) return undefined
  const values = only === undefined ? (listed as readonly unknown[]) : [only]
  if (type === undefined) return values
  const types = [type].flat()
  return values.filter((value) => typesOf(value).some((name) => types.includes(name)))
}
