/** A line of a text that was changed. */
export interface DiffLine {
  readonly kind: 'same' | 'added' | 'removed'
  readonly text: string
}

/** Larger texts are shown as removed and added as a whole. */
const maxCells = 4_000_000

/** Lines beside a change that are shown. */
const contextLines = 3

/** What differs between two texts, by the longest common lines, with three lines around each change. */
export function diffLines(before: readonly string[], after: readonly string[]): readonly DiffLine[] {
  let start = 0
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1
  let end = 0
  while (
    end < Math.min(before.length, after.length) - start &&
    before[before.length - 1 - end] === after[after.length - 1 - end]
  )
    end += 1
  const same = (text: string): DiffLine => ({ kind: 'same', text })
  const all = [
    ...before.slice(0, start).map(same),
    ...middle(before.slice(start, before.length - end), after.slice(start, after.length - end)),
    ...before.slice(before.length - end).map(same),
  ]
  return all.filter((line, index) => {
    if (line.kind !== 'same') return true
    const around = all.slice(Math.max(0, index - contextLines), index + contextLines + 1)
    return around.some(({ kind }) => kind !== 'same')
  })
}

function middle(before: readonly string[], after: readonly string[]): DiffLine[] {
  const removed = before.map((text): DiffLine => ({ kind: 'removed', text }))
  const added = after.map((text): DiffLine => ({ kind: 'added', text }))
  if ((before.length + 1) * (after.length + 1) > maxCells) return [...removed, ...added]
  const width = after.length + 1
  // How many lines the rests have in common.
  const common = new Uint32Array((before.length + 1) * width)
  const at = (i: number, j: number): number => common[i * width + j] ?? 0
  for (let i = before.length - 1; i >= 0; i -= 1)
    for (let j = after.length - 1; j >= 0; j -= 1)
      common[i * width + j] =
        before[i] === after[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1))
  const lines: DiffLine[] = []
  let [i, j] = [0, 0]
  while (i < before.length || j < after.length) {
    const [old, next] = [before[i], after[j]]
    if (old !== undefined && old === next) {
      lines.push({ kind: 'same', text: old })
      i += 1
      j += 1
    } else if (old !== undefined && (next === undefined || at(i + 1, j) >= at(i, j + 1))) {
      lines.push({ kind: 'removed', text: old })
      i += 1
    } else if (next !== undefined) {
      lines.push({ kind: 'added', text: next })
      j += 1
    }
  }
  return lines
}
