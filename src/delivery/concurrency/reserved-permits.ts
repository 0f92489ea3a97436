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
 * can keep another from going on, and a single busy one has nearly all of them. Where there are fewer than members, all go
 * to whoever asked first: the members take turns.
 *
 * @param total - at least one
 */
export function createShares(total: number, members: number): () => Share {
  const ownCount = total < members ? 0 : 1
  let free = total - members * ownCount
  const waiting: (() => boolean)[] = []

  return () => {
    let held = 0
    const share: Share = {
      tryTake() {
        if (held >= ownCount) {
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
        if (held >= ownCount) free += 1
        const next = waiting.findIndex((tryAgain) => tryAgain())
        if (next >= 0) waiting.splice(next, 1)
      },
    }
    return share
  }
}
