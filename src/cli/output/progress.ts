import { count, duration } from './cells.ts'
import type { TextStream } from './streams.ts'
import { cutTo, visible } from './visible-text.ts'

/** Tells how far long work has come, on standard error. */
export interface Progress {
  /** Call it as often as you like. */
  readonly at: (done: number, total?: number) => void
  /** Takes the bar away. Nothing is told afterwards. */
  readonly end: () => void
}

const barWidth = 24
const redrawMs = 100
const lineMs = 1000

/**
 * On a terminal a bar that is redrawn, elsewhere a line a second.
 *
 * @param clock - milliseconds, such as `performance.now`
 */
export function createProgress(stream: TextStream, what: string, clock: () => number): Progress {
  const beganAt = clock()
  const name = visible(what)
  let toldAt = stream.isTerminal ? Number.NEGATIVE_INFINITY : beganAt
  let isEnded = false
  let isDrawn = false

  function describe(done: number, total: number | undefined): string {
    const seconds = Math.max(0.001, (clock() - beganAt) / 1000)
    const rate = done / seconds
    const left = total === undefined || rate === 0 ? undefined : ((total - done) / rate) * 1000
    return [
      total === undefined ? count(done) : `${count(done)} of ${count(total)}`,
      `${count(Math.round(rate))}/s`,
      ...(left === undefined || left <= 0 ? [] : [`${duration(Math.max(1000, left))} left`]),
    ].join(', ')
  }

  return {
    at(done, total) {
      const now = clock()
      if (isEnded || now - toldAt < (stream.isTerminal ? redrawMs : lineMs)) return
      toldAt = now
      if (!stream.isTerminal) {
        stream.write(`${name}: ${describe(done, total)}\n`)
        return
      }
      isDrawn = true
      const share = total === undefined || total === 0 ? undefined : Math.min(1, done / total)
      const filled = Math.round((share ?? 0) * barWidth)
      const bar =
        share === undefined
          ? ''
          : `${'█'.repeat(filled)}${'░'.repeat(barWidth - filled)} ${Math.floor(share * 100)} %  `
      stream.write(`\r\u{1b}[K${cutTo(`${name}  ${bar}${describe(done, total)}`, stream.columns - 1)}`)
    },
    end() {
      isEnded = true
      if (isDrawn) stream.write('\r\u{1b}[K')
      isDrawn = false
    },
  }
}
