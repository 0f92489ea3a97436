/** What one member may hold of a common stock. */
export interface Share {
  /** Takes one at once, or gives false. */
  tryTake: () => boolean
  /** Resolves once one was taken. */
  take: () => Promise<void>
  giveBack: () => void
}

/**
 * Divides a stock among members: each always gets its first one, the others go to whoever asked first. So no member
 * can keep another from going on, and a single busy one has nearly all of them.
 *
 * @param total - at least as many as members
 */
export function createShares(total: number, members: number): () => Share {
  let free = total - members
  const waiting: (() => boolean)[] = []

  return () => {
    let held = 0
    const share: Share = {
      tryTake() {
        if (held > 0) {
          if (free === 0) return false
          free -= 1
        }
        held += 1
        return true
      },
      async take() {
        if (share.tryTake()) return
        await new Promise<void>((resolve) => {
          waiting.push(() => {
            const taken = share.tryTake()
            if (taken) resolve()
            return taken
          })
        })
      },
      giveBack() {
        held -= 1
        if (held > 0) free += 1
        const next = waiting.findIndex((tryAgain) => tryAgain())
        if (next >= 0) waiting.splice(next, 1)
      },
    }
    return share
  }
}
