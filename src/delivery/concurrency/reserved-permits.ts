import type { Semaphore } from './semaphore.ts'

/**
 * Divides permits among members. One permit is reserved for each member, the others go to the member that asks first. So no
 * member can block another, and a single busy member has nearly all of them. Where there are fewer permits than members, none is
 * reserved, and the members take turns.
 *
 * @param total - at least one
 * @returns makes the semaphore of one more member
 */
export function createReservedPermits(total: number, memberCount: number): () => Semaphore {
  const reservedCount = total < memberCount ? 0 : 1
  let free = total - memberCount * reservedCount
  const waiting: (() => boolean)[] = []

  return () => {
    let held = 0
    const member: Semaphore = {
      tryAcquire() {
        if (held >= reservedCount) {
          if (free === 0) return false
          free -= 1
        }
        held += 1
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
        if (held >= reservedCount) free += 1
        const next = waiting.findIndex((tryAgain) => tryAgain())
        if (next >= 0) waiting.splice(next, 1)
      },
    }
    return member
  }
}
