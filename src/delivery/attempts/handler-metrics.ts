import type { EventOutcome } from './outcome.ts'

/** How fast the handlers of a subscription are in this process. */
export interface Pace {
  /** Of those that succeeded: of the latest twenty or so. */
  readonly averageMs: number
  readonly handledCount: number
  readonly deliveredCount: number
  /** Takes the outcome of an attempt that was made. */
  note: (outcome: EventOutcome) => void
}

export function createPace(): Pace {
  let averageMs = 0
  let handledCount = 0
  let deliveredCount = 0
  return {
    get averageMs() {
      return averageMs
    },
    get handledCount() {
      return handledCount
    },
    get deliveredCount() {
      return deliveredCount
    },
    note(outcome) {
      if (outcome.delivered && (outcome.expired ?? outcome.erased) === true) return
      handledCount += 1
      if (!outcome.delivered) return
      deliveredCount += 1
      averageMs += (outcome.durationMs - averageMs) / Math.min(handledCount, 20)
    },
  }
}
