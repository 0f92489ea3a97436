import type { EventOutcome } from './outcome.ts'

/** The duration of a subscription's handlers in this process. */
export interface HandlerMetrics {
  /** The average over about the latest twenty successful handlers. */
  readonly averageMs: number
  readonly handledCount: number
  readonly deliveredCount: number
  record: (outcome: EventOutcome) => void
}

export function createHandlerMetrics(): HandlerMetrics {
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
    record(outcome) {
      if (outcome.delivered && (outcome.expired ?? outcome.erased) === true) return
      handledCount += 1
      if (!outcome.delivered) return
      deliveredCount += 1
      averageMs += (outcome.durationMs - averageMs) / Math.min(handledCount, 20)
    },
  }
}
