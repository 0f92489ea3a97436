import { toleratedSeconds } from '../jobs/queue-state/job-times.ts'

/** Detects that the clock of the server was set: after a failover to a server with another clock, or by hand. */
export interface ServerClock {
  /**
   * Records the server's time, in milliseconds, at some moment between two values of `performance.now()`. Returns by
   * how many milliseconds it was set since the last call: negative if it was set back, 0 if it was not set.
   */
  note: (clockMs: number, askedAt: number, answeredAt: number) => number
}

export function createServerClock(): ServerClock {
  /** The bounds of the difference between the server's clock and this process's clock. */
  let ahead: { readonly min: number; readonly max: number } | undefined
  return {
    note(clockMs, askedAt, answeredAt) {
      const before = ahead
      ahead = { min: clockMs - answeredAt, max: clockMs - askedAt }
      if (before === undefined) return 0
      const toleratedMs = toleratedSeconds * 1000
      if (ahead.min > before.max + toleratedMs) return ahead.min - before.max
      if (ahead.max < before.min - toleratedMs) return ahead.max - before.min
      return 0
    },
  }
}
