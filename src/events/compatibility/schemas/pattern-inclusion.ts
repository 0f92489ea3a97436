import { parsePattern, textOfLength, type PatternPart } from './pattern-language.ts'

/** The texts that match all of some patterns and have a length in code points. */
export interface TextConditions {
  readonly patterns: readonly string[]
  readonly minLength: number
  readonly maxLength: number
}

/** `within`: every text matches. `outside`: `example` does not match, if it is one of the texts at all. */
export type Inclusion =
  { readonly verdict: 'within' | 'unknown' } | { readonly verdict: 'outside'; readonly example: string }

/** Longer lengths are not unrolled. */
const maxCounted = 300
const maxStates = 4000
const maxSteps = 300_000

/**
 * Whether every text of some conditions matches a pattern, or has a length. Patterns are run as automata, side by side.
 * Features that no automaton can express are left out of the conditions, and make `to` unknown.
 */
export function isIncluded(
  from: TextConditions,
  to: string | Pick<TextConditions, 'minLength' | 'maxLength'>,
): Inclusion {
  const target = typeof to === 'string' ? parsePattern(to, false)?.part : lengthOf(to)
  if (target === undefined) return { verdict: 'unknown' }
  return search(conditionsOf(from), target)
}

/** One of the shortest texts of some conditions, if one was found; features that could not be expressed may refuse it. */
export function exampleOf(from: TextConditions): string | undefined {
  const found = search(conditionsOf(from), { kind: 'set', ranges: [] })
  return found.verdict === 'outside' ? found.example : undefined
}

function conditionsOf({ patterns, minLength, maxLength }: TextConditions): readonly PatternPart[] {
  const lengths = lengthOf({
    minLength: Math.min(minLength, maxCounted),
    maxLength: maxLength > maxCounted ? Number.POSITIVE_INFINITY : maxLength,
  })
  return [
    ...patterns.flatMap((pattern) => parsePattern(pattern, true)?.part ?? []),
    ...(lengths === undefined ? [] : [lengths]),
  ]
}

function lengthOf({
  minLength,
  maxLength,
}: Pick<TextConditions, 'minLength' | 'maxLength'>): PatternPart | undefined {
  if (minLength > maxCounted || (maxLength > maxCounted && Number.isFinite(maxLength))) return undefined
  return textOfLength(minLength, maxLength)
}

const followed = new Map<string, Automaton | undefined>()

/**
 * Whether a text matches a pattern, in time proportional to the text, because backtracking may be exponential.
 * Undefined if the pattern cannot be expressed as an automaton.
 */
export function followPattern(pattern: string, text: string): boolean | undefined {
  if (!followed.has(pattern)) {
    const part = parsePattern(pattern, false)?.part
    if (followed.size >= maxStates) followed.clear()
    followed.set(pattern, part === undefined ? undefined : toAutomaton(part))
  }
  const automaton = followed.get(pattern)
  if (automaton === undefined) return undefined
  let states = closure(automaton, [0])
  for (const character of text) states = advance(automaton, states, character.codePointAt(0) ?? 0)
  return states.includes(automaton.end)
}

/** A pattern as states and transitions. */
interface Automaton {
  readonly silent: number[][]
  readonly steps: { readonly ranges: readonly (readonly [number, number])[]; readonly to: number }[][]
  readonly end: number
}

/** Breadth first through pairs of state sets, so that the example is short. */
function search(from: readonly PatternPart[], to: PatternPart): Inclusion {
  const automata: Automaton[] = []
  for (const part of [...from, to]) {
    const automaton = toAutomaton(part)
    if (automaton === undefined) return { verdict: 'unknown' }
    automata.push(automaton)
  }
  const alphabet = representatives(automata)
  const start = automata.map((automaton) => closure(automaton, [0]))
  const queue: { readonly sets: readonly (readonly number[])[]; readonly text: string }[] = [
    { sets: start, text: '' },
  ]
  const seen = new Set([keyOf(start)])
  let steps = 0
  for (const { sets, text } of queue) {
    const accepted = automata.map((automaton, index) => sets[index]?.includes(automaton.end) === true)
    if (accepted.slice(0, -1).every(Boolean) && accepted.at(-1) === false)
      return { verdict: 'outside', example: text }
    for (const point of alphabet) {
      steps += automata.length
      if (steps > maxSteps) return { verdict: 'unknown' }
      const next: (readonly number[])[] = []
      for (const [index, automaton] of automata.entries()) {
        const reached = advance(automaton, sets[index] ?? [], point)
        if (reached.length === 0 && index < automata.length - 1) break
        next.push(reached)
      }
      if (next.length < automata.length) continue
      const key = keyOf(next)
      if (seen.has(key)) continue
      if (seen.size > maxStates) return { verdict: 'unknown' }
      seen.add(key)
      queue.push({ sets: next, text: text + String.fromCodePoint(point) })
    }
  }
  return { verdict: 'within' }
}

function keyOf(sets: readonly (readonly number[])[]): string {
  return sets.map((set) => set.join(',')).join(';')
}

/** One code point of each range that all patterns treat alike, readable ones first. */
function representatives(automata: readonly Automaton[]): readonly number[] {
  const bounds = new Set([0])
  for (const { steps } of automata)
    for (const { ranges } of steps.flat())
      for (const [first, last] of ranges) {
        bounds.add(first)
        if (last < 0x10_ff_ff) bounds.add(last + 1)
      }
  const sorted = [...bounds].toSorted((a, b) => a - b)
  const chosen = sorted.map((first, index) => {
    const last = (sorted[index + 1] ?? 0x11_00_00) - 1
    return [0x61, 0x41, 0x30, 0x20].find((point) => point >= first && point <= last) ?? first
  })
  const rank = (point: number): number =>
    point >= 0x30 && point < 0x7f ? 0 : point >= 0x20 && point < 0xd800 ? 1 : 2
  return chosen.toSorted((a, b) => rank(a) - rank(b))
}

function advance(automaton: Automaton, states: readonly number[], point: number): readonly number[] {
  const reached = new Set<number>()
  for (const state of states)
    for (const { ranges, to } of automaton.steps[state] ?? [])
      if (ranges.some(([first, last]) => point >= first && point <= last)) reached.add(to)
  return reached.size === 0 ? [] : closure(automaton, [...reached])
}

function closure({ silent }: Automaton, states: readonly number[]): readonly number[] {
  const reached = new Set(states)
  for (const state of reached) for (const next of silent[state] ?? []) reached.add(next)
  return [...reached].toSorted((a, b) => a - b)
}

/** Undefined if it would have too many states. The first state is 0. */
function toAutomaton(part: PatternPart): Automaton | undefined {
  const silent: number[][] = []
  const steps: Automaton['steps'] = []
  const newState = (): number => {
    steps.push([])
    return silent.push([]) - 1
  }
  const link = (from: number, to: number): void => {
    silent[from]?.push(to)
  }
  /** Adds the states of a part after a state, and returns the state that follows the part. */
  function add(one: PatternPart, from: number): number {
    if (silent.length > maxStates) return from
    const to = newState()
    if (one.kind === 'set') {
      steps[from]?.push({ ranges: one.ranges, to })
    } else if (one.kind === 'sequence') {
      link(
        one.parts.reduce((state, item) => add(item, state), from),
        to,
      )
    } else if (one.kind === 'choice') {
      for (const item of one.parts) {
        const begin = newState()
        link(from, begin)
        link(add(item, begin), to)
      }
    } else {
      let state = from
      for (let count = 0; count < one.min; count += 1) state = add(one.part, state)
      if (one.max === Number.POSITIVE_INFINITY) {
        const loop = newState()
        link(state, loop)
        link(add(one.part, loop), loop)
        link(loop, to)
      } else {
        for (let count = one.min; count < one.max; count += 1) {
          link(state, to)
          state = add(one.part, state)
        }
        link(state, to)
      }
    }
    return to
  }
  const end = add(part, newState())
  return silent.length > maxStates ? undefined : { silent, steps, end }
}

/** Whether no text satisfies some conditions. True only if that is certain. */
export function isNoText(conditions: TextConditions): boolean {
  return search(conditionsOf(conditions), { kind: 'set', ranges: [] }).verdict === 'within'
}
