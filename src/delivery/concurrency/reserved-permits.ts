import type { Semaphore } from './semaphore.ts'

/** The semaphore of one of several members. */
export interface MemberPermits extends Semaphore {
  /** Gives the reservation back. What the member still waits for it gets as soon as any permit is free. */
  leave: () => void
}

/**
 * Divides permits among members. One permit is reserved for each member, the others go to the member that asks first. So no
 * member can block another, and a single busy member has nearly all of them. Where there are fewer permits than members, none is
 * reserved, and the members take turns.
 *
 * @param total - at least one
 * @param expectedCount - how many members are expected. More may come: then the permits are divided among all of them
 * @returns makes the semaphore of one more member
 */
export function createReservedPermits(total: number, expectedCount: number): () => MemberPermits {
  /** Those that are still expected included. */
  let memberCount = expectedCount
  let madeCount = 0
  let heldCount = 0
  /** Members without a permit, those that are still expected included. */
  let idleCount = expectedCount
  const waiting: (() => boolean)[] = []

  /** Whether a member may have one more permit, besides those that are reserved for others. */
  function isFree(isIdle: boolean): boolean {
    const reservedForOthers = total >= memberCount ? idleCount - (isIdle ? 1 : 0) : 0
    return total - heldCount - reservedForOthers > 0
  }

  function admitFirst(): boolean {
    const next = waiting.findIndex((tryAgain) => tryAgain())
    if (next < 0) return false
    waiting.splice(next, 1)
    return true
  }

  return () => {
    madeCount += 1
    if (madeCount > memberCount) {
      memberCount = madeCount
      idleCount += 1
    }
    let held = 0
    let hasLeft = false
    const isIdle = (): boolean => !hasLeft && held === 0
    const member: MemberPermits = {
      tryAcquire() {
        if (hasLeft ? heldCount >= total : !isFree(isIdle())) return false
        if (isIdle()) idleCount -= 1
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
        if (isIdle()) idleCount += 1
        admitFirst()
      },
      leave() {
        if (hasLeft) return
        if (isIdle()) idleCount -= 1
        hasLeft = true
        madeCount -= 1
        memberCount -= 1
        while (admitFirst());
      },
    }
    return member
  }
}
