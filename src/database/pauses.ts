/** Waits of a bus that keep its process alive, but only until the bus was stopped. */
export interface Pauses {
  wait: (durationMs: number) => Promise<void>
  /** From now on nobody who waits keeps the process alive: whoever lives for another reason gets to the end of the wait. */
  letGo: () => void
}

export function createPauses(): Pauses {
  const timers = new Set<NodeJS.Timeout>()
  let isLetGo = false
  return {
    async wait(durationMs) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          timers.delete(timer)
          resolve()
        }, durationMs)
        if (isLetGo) timer.unref()
        else timers.add(timer)
      })
    },
    letGo() {
      isLetGo = true
      for (const timer of timers) timer.unref()
      timers.clear()
    },
  }
}
