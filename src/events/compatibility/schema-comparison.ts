import { SchemaDocument, TooComplex, type SchemaNode } from './schemas/document.ts'
import { Fits, type Pair } from './schemas/fits.ts'
import type { FindingRule, Need } from './schemas/needs.ts'
import type { Part } from './schemas/shape.ts'
import type { JsonSchema } from '../contracts/schema-dialect.ts'

/** A way in which a value that fits one schema may not fit another. Constraints of schemas are named, never values of events. */
export interface Incompatibility {
  /**
   * Dotted, `*` for the items of an array or the values of a record, `<name>` for the names of a record. Empty: the payload
   * itself. The shortest of those that lead there.
   */
  readonly path: string
  /** `unclear`: it cannot be told whether any value is affected. */
  readonly rule: FindingRule | 'unclear'
  readonly detail: string
}

/** More findings than these are not told one by one. */
const maxReasons = 20_000

/**
 * Why a value that fits `from` may not fit `to`; empty when each one does. What is not `unclear` is sure: there are such
 * values. Properties that `to` does not name are no incompatibility, whatever it says of additional ones: readers leave alone what they
 * do not know. And `from` is taken to hold what it names, where it says nothing of additional ones.
 *
 * Each finding is told once, at its shortest path. Takes time in proportion to the schemas, but for unions whose alternatives
 * cannot be told apart; what would take too long is `unclear`.
 */
export function findIncompatibilities(from: JsonSchema, to: JsonSchema): readonly Incompatibility[] {
  if (JSON.stringify(from) === JSON.stringify(to)) return []
  try {
    const numbers = new Map<string, number>()
    const written = new SchemaDocument(from, numbers, false).root
    const read = new SchemaDocument(to, numbers, true).root
    return written.key === read.key ? [] : explain(new Fits(), written, read)
  } catch (error) {
    if (error instanceof TooComplex || error instanceof RangeError)
      return [{ path: '', rule: 'unclear', detail: 'has a schema that is too complex to be compared' }]
    throw error
  }
}

/** A pair of which it is to be told why it does not fit. */
interface Reason {
  readonly pair: Pair
  readonly path: readonly string[]
  /**
   * Where it stands, as seen from the definition that a reference led to: what was told there once is not told again, and
   * schemas that refer to themselves come to an end.
   */
  readonly place: string
  readonly isSure: boolean
}

/** Breadth first, so that each finding has its shortest path. */
function explain(fits: Fits, from: SchemaNode, to: SchemaNode): readonly Incompatibility[] {
  const found = new Map<string, Incompatibility>()
  const seen = new Set<string>()
  const queue: Reason[] = []

  function note(need: Extract<Need, { kind: 'unmet' }>, { path }: Reason, isSure: boolean): void {
    const at = [...path, ...(need.step === undefined ? [] : [need.step])].join('.')
    const incompatibility: Incompatibility = isSure
      ? { path: at, rule: need.rule, detail: need.detail }
      : {
          path: at,
          rule: 'unclear',
          detail: `${need.detail} (whether this affects any value cannot be told)`,
        }
    const key = JSON.stringify([at, need.detail])
    if (isSure || !found.has(key)) found.set(key, incompatibility)
  }

  function add(parts: readonly Part[], target: SchemaNode, next: Omit<Reason, 'pair'>): void {
    for (const part of parts) {
      const pair = fits.pairOf(part, target)
      if (fits.verdictOf(pair) !== 'fits') queue.push({ ...next, pair })
    }
  }

  add(fits.shapes.partsOf([from]), to, { path: [], place: to.key, isSure: true })
  for (const reason of queue) {
    const { pair, path, place } = reason
    const isSure = reason.isSure && fits.verdictOf(pair) === 'incompatible'
    const key = `${place} ${pair.key} ${isSure}`
    if (seen.has(key)) continue
    seen.add(key)
    if (seen.size > maxReasons) throw new TooComplex()
    const needs = fits.needsOf(pair).filter((need) => fits.verdictOfNeed(need) !== 'fits')
    // Where no need alone decides, a value that was found does: then all of them are told.
    const isFound = isSure && needs.every((need) => fits.verdictOfNeed(need) !== 'incompatible')
    for (const need of needs) {
      const isNeedSure = isSure && (isFound || fits.verdictOfNeed(need) === 'incompatible')
      const here = { path, place, isSure: isNeedSure }
      if (need.kind === 'unmet') {
        note(need, reason, isNeedSure)
      } else if (need.kind === 'fit') {
        const { step, isReference } = need
        if (isReference === true) add(need.parts, need.to, { ...here, place: need.to.key })
        else if (step === undefined) add(need.parts, need.to, here)
        else
          add(need.parts, need.to, {
            ...here,
            path: [...path, step],
            place: `${place} ${JSON.stringify(step)}`,
          })
      } else {
        const split = need.split()?.filter((part) => fits.verdictOf({ part, to: need.to }) !== 'fits')
        const meant = fits.nearest(need.part, need.alternatives)
        if (split !== undefined) add(split, need.to, here)
        else if (meant === undefined) note(need.otherwise(), reason, isNeedSure)
        else add([need.part], meant, here)
      }
    }
  }
  return [...found.values()]
}
