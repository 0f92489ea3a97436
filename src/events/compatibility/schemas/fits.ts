import { TooComplex, type SchemaNode } from './document.ts'
import { unmet, type Need } from './needs.ts'
import { needsOf } from './needs-of.ts'
import { Samples } from './samples.ts'
import { type Part } from './shape.ts'
import { Shapes } from './shapes.ts'

/** `unclear` means that it cannot be told. */
export type Verdict = 'fits' | 'unclear' | 'incompatible'

/** A part and a schema that it may fit. */
export interface Pair {
  readonly key: string
  readonly part: Part
  readonly to: SchemaNode
}

interface Known extends Pair {
  verdict: Verdict
  needs: readonly Need[] | undefined
  /** Whether a counterexample was found, once one has been searched for. */
  witness: boolean | undefined
  readonly dependents: Set<Known>
  isQueued: boolean
}

const ranks: Readonly<Record<Verdict, number>> = { fits: 2, unclear: 1, incompatible: 0 }

/** No more pairs than this are compared. */
const maxPairs = 100_000
/** No pair is examined again after this many examinations in total. */
const maxComparisons = 500_000

/**
 * Decides whether parts fit schemas. A pair counts as fitting until a reason against it is found, so recursive schemas
 * terminate: each finding lowers the verdict of a pair and of the pairs that depend on it, at most twice.
 */
export class Fits {
  readonly shapes = new Shapes()
  readonly #samples = new Samples(this.shapes)
  readonly #known = new Map<string, Known>()
  readonly #queue: Known[] = []
  #comparisonCount = 0

  pairOf(part: Part, to: SchemaNode): Pair {
    return this.#find(part, to)
  }

  /** The final verdict. */
  verdictOf({ part, to }: Pick<Pair, 'part' | 'to'>): Verdict {
    const known = this.#find(part, to)
    this.#settle()
    return known.verdict
  }

  needsOf({ part, to }: Pick<Pair, 'part' | 'to'>): readonly Need[] {
    const known = this.#find(part, to)
    known.needs ??= this.#findNeeds(part, to)
    return known.needs
  }

  #findNeeds(part: Part, to: SchemaNode): readonly Need[] {
    try {
      return needsOf(this.shapes, part, to)
    } catch (error) {
      if (!(error instanceof TooComplex)) throw error
      return [unmet('values', 'has a schema that is too complex to be compared', { decides: false })]
    }
  }

  verdictOfNeed(need: Need): Verdict {
    const verdict = this.#judge(need, undefined)
    this.#settle()
    return this.#queue.length === 0 ? this.#judge(need, undefined) : verdict
  }

  /** The alternative that was probably meant: among those that accept such values, the one with the fewest unmet needs. */
  nearest(part: Part, alternatives: readonly SchemaNode[]): SchemaNode | undefined {
    const weighed = alternatives.map((to) => {
      const needs = this.needsOf({ part, to }).filter((need) => this.verdictOfNeed(need) !== 'fits')
      return {
        to,
        weight: needs.length,
        isOther: needs.some((need) => need.kind === 'unmet' && need.rule === 'type'),
      }
    })
    return weighed.filter(({ isOther }) => !isOther).toSorted((a, b) => a.weight - b.weight)[0]?.to
  }

  #find(part: Part, to: SchemaNode): Known {
    const key = `${part.kind} ${part.shape.key} > ${to.key}`
    let known = this.#known.get(key)
    if (known === undefined) {
      if (this.#known.size >= maxPairs) throw new TooComplex()
      known = {
        key,
        part,
        to,
        verdict: 'fits',
        needs: undefined,
        witness: undefined,
        dependents: new Set(),
        isQueued: false,
      }
      this.#known.set(key, known)
      if (!part.shape.holds.has(to.key) && to.schema !== true) this.#enqueue(known)
    }
    return known
  }

  #enqueue(known: Known): void {
    if (known.isQueued || known.verdict === 'incompatible') return
    known.isQueued = true
    this.#queue.push(known)
  }

  #settle(): void {
    for (let known = this.#queue.pop(); known !== undefined; known = this.#queue.pop()) {
      known.isQueued = false
      this.#comparisonCount += 1
      if (this.#comparisonCount > maxComparisons) throw new TooComplex()
      const verdict = this.#compare(known)
      if (ranks[verdict] >= ranks[known.verdict]) continue
      known.verdict = verdict
      for (const dependent of known.dependents) this.#enqueue(dependent)
    }
  }

  #compare(known: Known): Verdict {
    known.needs ??= this.#findNeeds(known.part, known.to)
    const verdict = lowest(known.needs.map((need) => this.#judge(need, known)))
    if (verdict === 'fits' || (verdict === 'incompatible' && !known.part.shape.loose.has(known.part.kind)))
      return verdict
    known.witness ??= this.#samples.tellApart(known.part, known.to)
    return known.witness ? 'incompatible' : 'unclear'
  }

  #judge(need: Need, dependent: Known | undefined): Verdict {
    if (need.kind === 'unmet') return need.decides ? 'incompatible' : 'unclear'
    if (need.kind === 'fit') {
      const verdict = this.#all(need.parts, need.to, dependent)
      return verdict === 'incompatible' && !need.decides ? 'unclear' : verdict
    }
    let highest: Verdict = 'incompatible'
    for (const target of need.alternatives) {
      const verdict = this.#ask(need.part, target, dependent)
      if (ranks[verdict] > ranks[highest]) highest = verdict
      if (highest === 'fits') return 'fits'
    }
    const split = need.split()
    if (split !== undefined) return this.#all(split, need.to, dependent)
    return highest === 'incompatible' && !need.decides() ? 'unclear' : highest
  }

  #all(parts: readonly Part[], to: SchemaNode, dependent: Known | undefined): Verdict {
    return lowest(parts.map((part) => this.#ask(part, to, dependent)))
  }

  #ask(part: Part, to: SchemaNode, dependent: Known | undefined): Verdict {
    const known = this.#find(part, to)
    if (dependent !== undefined) known.dependents.add(dependent)
    return known.verdict
  }
}

function lowest(verdicts: readonly Verdict[]): Verdict {
  if (verdicts.includes('incompatible')) return 'incompatible'
  return verdicts.includes('unclear') ? 'unclear' : 'fits'
}
