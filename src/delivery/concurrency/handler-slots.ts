import type { Semaphore } from './semaphore.ts'

/**
 * First attempts, and retries: of events that have failed, or whose worker was lost. Each kind may take all slots while none of the
 * other kind waits, and half of them while one does: docs/adr/0026.
 */
export type AttemptKind = 'first' | 'retry'

/** The slots for the handlers of one subscription in this process. */
export interface HandlerSlots {
  /** The slots, as the attempts of each kind may take them. */
  readonly of: Readonly<Record<AttemptKind, Semaphore>>
  runningCount: (kind: AttemptKind) => number
  /** How many of so many slots a kind may have while an attempt of the other kind waits. */
  share: (kind: AttemptKind, slots: number) => number
  /** Whether attempts of a kind may wait in the queue, besides those that wait here. */
  isExpected: (kind: AttemptKind) => boolean
  /** Sets that. While it is true, the share of the kind is kept free, so the caller must look for such attempts. */
  expect: (kind: AttemptKind, isExpected: boolean) => void
}

/** @param onSlotKept - called when a slot stays free that may be kept for a kind */
export function createHandlerSlots(slots: number, onSlotKept: () => void): HandlerSlots {
  const running = { first: 0, retry: 0 }
  const waiting: Record<AttemptKind, (() => void)[]> = { first: [], retry: [] }
  const expected = { first: true, retry: false }
  let latest: AttemptKind = 'retry'

  /** The kinds take turns at the odd slot of an odd number. */
  function share(kind: AttemptKind, of: number): number {
    return Math.floor(of / 2) + (of % 2 === 1 && latest !== kind ? 1 : 0)
  }

  const isFull = (): boolean => running.first + running.retry >= slots

  function mayTake(kind: AttemptKind): boolean {
    if (isFull()) return false
    const other = otherThan(kind)
    return (waiting[other].length === 0 && !expected[other]) || running[kind] < share(kind, slots)
  }

  function take(kind: AttemptKind): void {
    running[kind] += 1
    latest = kind
  }

  function admit(): void {
    for (;;) {
      const kind = (['retry', 'first'] as const).find((one) => waiting[one].length > 0 && mayTake(one))
      const next = kind === undefined ? undefined : waiting[kind].shift()
      if (kind === undefined || next === undefined) break
      take(kind)
      next()
    }
    if (!isFull() && (waiting.first.length + waiting.retry.length > 0 || expected.retry)) onSlotKept()
  }

  function slotsOf(kind: AttemptKind): Semaphore {
    return {
      tryAcquire() {
        if (!mayTake(kind)) return false
        take(kind)
        return true
      },
      async acquire() {
        await new Promise<void>((resolve) => {
          waiting[kind].push(resolve)
          admit()
        })
      },
      release() {
        running[kind] -= 1
        admit()
      },
    }
  }

  return {
    of: { first: slotsOf('first'), retry: slotsOf('retry') },
    runningCount: (kind) => running[kind],
    share,
    isExpected: (kind) => expected[kind],
    expect(kind, isExpected) {
      if (expected[kind] === isExpected) return
      expected[kind] = isExpected
      if (!isExpected) admit()
    },
  }
}

function otherThan(kind: AttemptKind): AttemptKind {
  return kind === 'first' ? 'retry' : 'first'
}

/** What a fetch asks for: attempts of one kind, or whatever comes first, and how many single events. */
export interface FetchPlan {
  readonly kind: AttemptKind | 'any'
  readonly eventCount: number
}

/**
 * What a worker fetches next, with so many events of each kind in flight. Retries come first in the queue. So the kinds are fetched
 * separately, each up to its share, only where a fetch found nothing but retries.
 */
export function planFetch(
  capacity: number,
  inFlight: Readonly<Record<AttemptKind, number>>,
  { runningCount, share, isExpected }: HandlerSlots,
): FetchPlan {
  const { first, retry } = inFlight
  // Retries beyond their share wait, and do not keep a first attempt from being fetched.
  const free = capacity - first - Math.min(retry, Math.max(share('retry', capacity), runningCount('retry')))
  if (!isExpected('retry')) return { kind: 'any', eventCount: free }
  const firstWaits = isExpected('first') || first > runningCount('first')
  if (!firstWaits) return { kind: 'any', eventCount: capacity - first - retry }
  const freeForRetries = Math.min(share('retry', capacity), capacity - runningCount('first')) - retry
  if (freeForRetries > 0) return { kind: 'retry', eventCount: freeForRetries }
  return {
    kind: 'first',
    eventCount: isExpected('first') ? Math.min(share('first', capacity) - first, free) : 0,
  }
}
