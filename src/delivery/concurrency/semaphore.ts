/** Lets a fixed number of holders in at a time, the others in the order they came. */
export interface Gate {
  /** Takes a place at once, or gives false. */
  tryEnter: () => boolean
  /** Resolves once a place was taken. */
  enter: () => Promise<void>
  leave: () => void
}

export function createGate(places: number): Gate {
  let free = places
  const waiting: (() => void)[] = []
  let head = 0
  return {
    tryEnter() {
      if (free === 0) return false
      free -= 1
      return true
    },
    async enter() {
      await new Promise<void>((resolve) => waiting.push(resolve))
    },
    leave() {
      const next = waiting[head]
      if (next === undefined) {
        free += 1
        return
      }
      // The place goes from one holder to the next.
      head += 1
      if (head > 1000 && head * 2 > waiting.length) {
        waiting.splice(0, head)
        head = 0
      }
      next()
    },
  }
}
