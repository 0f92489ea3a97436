import { onTestFinished, vi } from 'vitest'

/** The clock of this process, `performance.now()`, in the test's hand until it is over. Timers run as ever. */
export interface HeldClock {
  /** What waits for a time waits until it is advanced. Without this the clock goes as ever, but for what it was advanced. */
  readonly stop: () => void
  readonly advance: (ms: number) => void
}

export function holdClock(): HeldClock {
  const real = performance.now.bind(performance)
  let aheadMs = 0
  let stoppedAt: number | undefined
  const clock = vi.spyOn(performance, 'now').mockImplementation(() => (stoppedAt ?? real()) + aheadMs)
  onTestFinished(() => clock.mockRestore())
  return {
    stop() {
      stoppedAt = real()
    },
    advance(ms) {
      aheadMs += ms
    },
  }
}
