/** What a run left behind: each entry names an event, in whatever way all three have in common. */
export interface History {
  /** What the publishers committed, as their own business state says. */
  readonly committed: Iterable<string>
  /** Each time an at-least-once handler ran. */
  readonly ran: Iterable<string>
  /** Each effect that an exactly-once handler has left. */
  readonly effects: Iterable<string>
}

export interface Findings {
  readonly committedCount: number
  /** Committed, and never handled. */
  readonly lost: readonly string[]
  /** Committed, and without an effect. */
  readonly withoutEffect: readonly string[]
  /** With more than one effect. */
  readonly doubledEffects: readonly string[]
  /** Handled or with an effect, and never committed. */
  readonly invented: readonly string[]
  /** Runs of the at-least-once handler beyond the first of each event. */
  readonly repeatedRunCount: number
}

/** Holds what ran against what was committed. */
export function checkHistory({ committed, ran, effects }: History): Findings {
  const known = new Set(committed)
  const runs = countEach(ran)
  const effectCounts = countEach(effects)
  return {
    committedCount: known.size,
    lost: [...known].filter((name) => !runs.has(name)),
    withoutEffect: [...known].filter((name) => !effectCounts.has(name)),
    doubledEffects: [...effectCounts].filter(([, count]) => count > 1).map(([name]) => name),
    invented: [...new Set([...runs.keys(), ...effectCounts.keys()])].filter((name) => !known.has(name)),
    repeatedRunCount: [...runs.values()].reduce((sum, count) => sum + count - 1, 0),
  }
}

function countEach(names: Iterable<string>): ReadonlyMap<string, number> {
  const counts = new Map<string, number>()
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1)
  return counts
}
