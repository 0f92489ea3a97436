/** Delays that keep the process of a bus alive, but only until the bus has been stopped. */
export interface Pauses {
  wait: (durationMs: number) => Promise<void>
  /** From now on the delays do not keep the process alive. They still elapse if the process lives for another reason. */
  unref: () => void
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
    unref() {
      isLetGo = true
      for (const timer of timers) timer.unref()
      timers.clear()
    },
  }
}
