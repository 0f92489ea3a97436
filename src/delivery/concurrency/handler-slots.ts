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
  /** The number of slots has changed. Handlers beyond a lower number finish. */
  resized: () => void
}

/** @param slotCount - how many there are: {@link HandlerSlots.resized} says that it has changed
 * @param onSlotKept - called when a slot stays free that may be kept for a kind */
export function createHandlerSlots(slotCount: () => number, onSlotKept: () => void): HandlerSlots {
  const running = { first: 0, retry: 0 }
  const waiting: Record<AttemptKind, (() => void)[]> = { first: [], retry: [] }
  const expected = { first: true, retry: false }
  let latest: AttemptKind = 'retry'

  /** The kinds take turns at the odd slot of an odd number. */
  function share(kind: AttemptKind, of: number): number {
    return Math.floor(of / 2) + (of % 2 === 1 && latest !== kind ? 1 : 0)
  }

  const isFull = (): boolean => running.first + running.retry >= slotCount()

  function mayTake(kind: AttemptKind): boolean {
    if (isFull()) return false
    const other = otherThan(kind)
    return (waiting[other].length === 0 && !expected[other]) || running[kind] < share(kind, slotCount())
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
    resized: admit,
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

/** A handler that still runs after its attempt is over. */
interface StillRunning {
  readonly ended: Promise<void>
}

/** Starts the events of a worker's jobs, one job after the other, as many at a time as there are permits. */
export interface OrderedStarts {
  /**
   * Starts the events of a job in their order, after those of the jobs before it, each as soon as a permit is free.
   *
   * @param eventIds - may shrink meanwhile: an event that is gone is not started, except one that waits for a permit already
   * @param start - returns undefined where the event is over already. Resolves to the handler that still runs, if one does: its event
   *   is over, but its permit is taken until it has ended
   * @returns once all of them are over
   */
  run: (
    eventIds: Iterable<string>,
    start: (eventId: string) => Promise<StillRunning | void> | undefined,
  ) => Promise<void>
}

export function createOrderedStarts(permits: Semaphore): OrderedStarts {
  let last: Promise<void> = Promise.resolve()
  return {
    async run(eventIds, start) {
      const before = last
      const allStarted = Promise.withResolvers<void>()
      last = allStarted.promise
      const running: Promise<void>[] = []
      let failure: { readonly error: unknown } | undefined
      const fail = (error: unknown): void => void (failure ??= { error })
      const onOver = (stillRunning: StillRunning | void): void => {
        if (!stillRunning) permits.release()
        else void stillRunning.ended.then(() => permits.release())
      }
      const onFailed = (error: unknown): void => {
        fail(error)
        permits.release()
      }
      await before
      try {
        for (const eventId of eventIds) {
          if (!permits.tryAcquire()) await permits.acquire()
          let work: Promise<StillRunning | void> | undefined
          try {
            work = start(eventId)
          } catch (error) {
            fail(error)
          }
          if (work === undefined) permits.release()
          else running.push(work.then(onOver, onFailed))
        }
      } finally {
        allStarted.resolve()
      }
      await Promise.all(running)
      if (failure !== undefined) throw failure.error
    },
  }
}
