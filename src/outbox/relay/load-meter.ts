/**
 * From this many events in one claim on, publishers are told not to send notifications, because sending one takes a
 * database-wide lock.
 */
const busyClaimSize = 16

/** This many events within this time also count as busy, even if each claim was small. */
const busyWindowMs = 50
const busyWindowEvents = 50

/** Measures the load of a relay by the events that it claims. */
export interface LoadMeter {
  /** While true, publishers need not send notifications, because the relay claims again soon. */
  readonly isBusy: boolean
  /** Counts the events of a claim. */
  note: (eventCount: number) => void
}

export function createLoadMeter(): LoadMeter {
  let windowBeganAt = 0
  let windowCount = 0
  let busyAt = Number.NEGATIVE_INFINITY
  return {
    get isBusy() {
      return performance.now() - busyAt < busyWindowMs * 2
    },
    note(eventCount) {
      const now = performance.now()
      if (now - windowBeganAt > busyWindowMs) {
        windowBeganAt = now
        windowCount = 0
      }
      windowCount += eventCount
      if (eventCount >= busyClaimSize || windowCount >= busyWindowEvents) busyAt = now
    },
  }
}
