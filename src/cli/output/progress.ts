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

/** On a terminal the seconds are told from the first one on, elsewhere every ten of them. */
const quietTicks = 10

/**
 * Waits for work of which nobody knows how far it is, and tells on standard error for how long it has gone on.
 *
 * @param clock - milliseconds, such as `performance.now`
 */
export async function tellElapsed<T>(
  stream: TextStream,
  what: string,
  clock: () => number,
  work: Promise<T>,
): Promise<T> {
  const beganAt = clock()
  const name = visible(what)
  let ticks = 0
  let isDrawn = false
  const timer = setInterval(() => {
    ticks += 1
    const elapsed = duration(Math.round((clock() - beganAt) / 1000) * 1000).replace('.0 s', ' s')
    if (stream.isTerminal) {
      isDrawn = true
      stream.write(`\r\u{1b}[K${cutTo(`${name}  ${elapsed}`, stream.columns - 1)}`)
    } else if (ticks % quietTicks === 0) stream.write(`${name}: ${elapsed}\n`)
  }, lineMs)
  try {
    return await work
  } finally {
    clearInterval(timer)
    if (isDrawn) stream.write('\r\u{1b}[K')
  }
}
