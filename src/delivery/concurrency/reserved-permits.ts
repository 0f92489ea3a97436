import type { Semaphore } from './semaphore.ts'

/**
 * Divides permits among members. One permit is reserved for each member, the others go to the member that asks first. So no
 * member can block another, and a single busy member has nearly all of them. Where there are fewer permits than members, none is
 * reserved, and the members take turns.
 *
 * @param total - at least one
 * @param memberCount - how many members are expected. More may come: then the permits are divided among all of them
 * @returns makes the semaphore of one more member
 */
export function createReservedPermits(total: number, memberCount: number): () => Semaphore {
  let madeCount = 0
  let heldCount = 0
  /** Members without a permit, those that are still expected included. */
  let idleCount = memberCount
  const waiting: (() => boolean)[] = []

  /** Whether a member may have one more permit, besides those that are reserved for others. */
  function isFree(held: number): boolean {
    const isReserved = total >= Math.max(memberCount, madeCount)
    const reservedForOthers = isReserved ? idleCount - (held === 0 ? 1 : 0) : 0
    return total - heldCount - reservedForOthers > 0
  }

  return () => {
    madeCount += 1
    if (madeCount > memberCount) idleCount += 1
    let held = 0
    const member: Semaphore = {
      tryAcquire() {
        if (!isFree(held)) return false
        if (held === 0) idleCount -= 1
        held += 1
        heldCount += 1
        return true
      },
      async acquire() {
        if (member.tryAcquire()) return
        await new Promise<void>((resolve) => {
          waiting.push(() => {
            const acquired = member.tryAcquire()
            if (acquired) resolve()
            return acquired
          })
        })
      },
      release() {
        held -= 1
        heldCount -= 1
        if (held === 0) idleCount += 1
        const next = waiting.findIndex((tryAgain) => tryAgain())
        if (next >= 0) waiting.splice(next, 1)
      },
    }
    return member
  }
}
