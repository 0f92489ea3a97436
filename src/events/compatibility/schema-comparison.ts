import { SchemaDocument, TooComplex, type SchemaNode } from './schemas/document.ts'
import { Fits, type Pair } from './schemas/fits.ts'
import type { FindingRule, Need } from './schemas/needs.ts'
import type { Part } from './schemas/shape.ts'
import type { JsonSchema } from '../contracts/schema-dialect.ts'

/** A way in which a value that fits one schema may not fit another. Names constraints of schemas, never values of events. */
export interface Incompatibility {
  /**
   * Dotted, `*` for the items of an array or the values of a record, `<name>` for the names of a record. Empty for the
   * payload itself. If several paths lead to the same place, this is the shortest one.
   */
  readonly path: string
  /** `unclear` if the comparison cannot tell whether any value is affected. */
  readonly rule: FindingRule | 'unclear'
  readonly detail: string
}

/** Comparisons with more findings than this do not list them one by one. */
const maxReasons = 20_000

/**
 * Finds the reasons why a value that fits `from` may not fit `to`; empty if every such value fits. A finding that is
 * not `unclear` is certain: such values exist. Properties that `to` does not name are not an incompatibility, whatever
 * it states about additional properties, because readers ignore what they do not know. And `from` is assumed to hold
 * only what it names, if it states nothing about additional properties.
 *
 * Each finding is reported once, at its shortest path. The time is proportional to the size of the schemas, except for
 * unions whose alternatives cannot be told apart; comparisons that would take too long are `unclear`.
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

/** A pair of schemas whose incompatibility has to be explained. */
interface Reason {
  readonly pair: Pair
  readonly path: readonly string[]
  /**
   * The location relative to the definition that a reference led to. A finding is not repeated there, so recursive
   * schemas terminate.
   */
  readonly place: string
  readonly isSure: boolean
}

/** Breadth first, so that each finding gets its shortest path. */
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
    // If no single need decides, a counterexample does: then all of the needs are reported.
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
