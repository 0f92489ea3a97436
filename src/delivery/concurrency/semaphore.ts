/** A fixed number of permits. Those who wait for one get it in the order they came. */
export interface Semaphore {
  /** Takes a permit if one is free. Returns whether it did. */
  tryAcquire: () => boolean
  /** Resolves once a permit was taken. */
  acquire: () => Promise<void>
  release: () => void
}

export function createSemaphore(permits: number): Semaphore {
  let free = permits
  const waiting: (() => void)[] = []
  let head = 0
  return {
    tryAcquire() {
      if (free === 0) return false
      free -= 1
      return true
    },
    async acquire() {
      await new Promise<void>((resolve) => waiting.push(resolve))
    },
    release() {
      const next = waiting[head]
      if (next === undefined) {
        free += 1
        return
      }
      // The permit passes from one holder to the next.
      head += 1
      if (head > 1000 && head * 2 > waiting.length) {
        waiting.splice(0, head)
        head = 0
      }
      next()
    },
  }
}
