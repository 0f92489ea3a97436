/** One line of what a handler did, by the machine's monotonic clock. */
export interface HistoryLine {
  readonly at: bigint
  readonly what: 'begins' | 'succeeds' | 'fails' | 'dies'
  readonly key: string
  readonly number: number
}

/** What is wrong in a history, by kind. All zero: every key's numbers 0, 1, 2… ran in order, one at a time, to the end. */
export interface OrderFindings {
  readonly outOfOrder: number
  readonly atOnce: number
  readonly doubled: number
  readonly missing: number
  readonly failedAttempts: number
}

/**
 * Checks what ran against what was committed: `count` events of each key, numbered from 0. An attempt that failed, or
 * whose process died, must be followed by another one at the same number before anything else of its key runs.
 */
export function checkOrder(
  history: readonly HistoryLine[],
  keys: readonly string[],
  count: number,
): OrderFindings {
  const findings = { outOfOrder: 0, atOnce: 0, doubled: 0, missing: 0, failedAttempts: 0 }
  const next = new Map(keys.map((key) => [key, 0]))
  const running = new Map<string, number>()
  for (const { what, key, number } of history.toSorted((a, b) => (a.at < b.at ? -1 : 1))) {
    const expected = next.get(key) ?? 0
    if (what === 'begins') {
      if (running.has(key)) findings.atOnce += 1
      if (number < expected) findings.doubled += 1
      else if (number > expected) findings.outOfOrder += 1
      running.set(key, number)
      continue
    }
    running.delete(key)
    if (what === 'succeeds') next.set(key, Math.max(expected, number + 1))
    else findings.failedAttempts += 1
  }
  for (const reached of next.values()) findings.missing += Math.max(0, count - reached)
  return findings
}

/**
 * The lines that one process wrote: time, what, key and number. Where the last line of a key says that an event begins, the
 * process died over it.
 */
export function readOrder(text: string): HistoryLine[] {
  const lines = text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [at = '', what = '', key = '', number = ''] = line.split(' ')
      return { at: BigInt(at), what: what as HistoryLine['what'], key, number: Number(number) }
    })
  const last = lines.at(-1)?.at ?? 0n
  const ends = new Map(lines.map((line) => [line.key, line]))
  const deaths = [...ends.values()].filter(({ what }) => what === 'begins')
  return [...lines, ...deaths.map((line) => ({ ...line, at: last + 1n, what: 'dies' as const }))]
}
