import type { Gate } from './semaphore.ts'

/**
 * First attempts, and later ones: of events that have failed, or whose worker was lost. Each may take all places while nothing of the
 * other waits, and half of them while something does: docs/adr/0026.
 */
export type Lane = 'first' | 'later'

/** The places for the handlers of a subscription in this process. */
export interface Slots {
  /** The places, as the events of one lane may take them. */
  readonly gates: Readonly<Record<Lane, Gate>>
  running: (lane: Lane) => number
  /** How many of so many places a lane may have while something of the other waits. */
  share: (lane: Lane, places: number) => number
  /** Whether events of a lane may wait in the queue, besides those that wait here. */
  isExpected: (lane: Lane) => boolean
  /** Says so. While it is so, the places of its share are kept free for a lane, so whoever says it looks for them. */
  expect: (lane: Lane, isExpected: boolean) => void
}

/** @param onKept - called when a place stays free that may be kept for a lane */
export function createSlots(places: number, onKept: () => void): Slots {
  const running = { first: 0, later: 0 }
  const waiting: Record<Lane, (() => void)[]> = { first: [], later: [] }
  const expected = { first: true, later: false }
  let last: Lane = 'later'

  /** Of an odd number, the lanes have the odd place in turn. */
  function share(lane: Lane, of: number): number {
    return Math.floor(of / 2) + (of % 2 === 1 && last !== lane ? 1 : 0)
  }

  const isFull = (): boolean => running.first + running.later >= places

  function mayTake(lane: Lane): boolean {
    if (isFull()) return false
    const other = otherThan(lane)
    return (waiting[other].length === 0 && !expected[other]) || running[lane] < share(lane, places)
  }

  function take(lane: Lane): void {
    running[lane] += 1
    last = lane
  }

  function admit(): void {
    for (;;) {
      const lane = (['later', 'first'] as const).find((one) => waiting[one].length > 0 && mayTake(one))
      const next = lane === undefined ? undefined : waiting[lane].shift()
      if (lane === undefined || next === undefined) break
      take(lane)
      next()
    }
    if (!isFull() && (waiting.first.length + waiting.later.length > 0 || expected.later)) onKept()
  }

  function gateOf(lane: Lane): Gate {
    return {
      tryEnter() {
        if (!mayTake(lane)) return false
        take(lane)
        return true
      },
      async enter() {
        await new Promise<void>((resolve) => {
          waiting[lane].push(resolve)
          admit()
        })
      },
      leave() {
        running[lane] -= 1
        admit()
      },
    }
  }

  return {
    gates: { first: gateOf('first'), later: gateOf('later') },
    running: (lane) => running[lane],
    share,
    isExpected: (lane) => expected[lane],
    expect(lane, isExpected) {
      if (expected[lane] === isExpected) return
      expected[lane] = isExpected
      if (!isExpected) admit()
    },
  }
}

function otherThan(lane: Lane): Lane {
  return lane === 'first' ? 'later' : 'first'
}

/** What is to be fetched: of one lane, or whatever comes first, and how many single events. */
export interface Wish {
  readonly lane: Lane | 'any'
  readonly events: number
}

/**
 * What a worker fetches next, with so many events of each lane in hand. Later attempts come first in the queue, so only where a
 * fetch found nothing else the lanes are fetched from apart, each up to its share.
 */
export function nextWish(
  capacity: number,
  held: Readonly<Record<Lane, number>>,
  { running, share, isExpected }: Slots,
): Wish {
  const { first, later } = held
  // What is held beyond its share waits, and keeps no first attempt away.
  const free = capacity - first - Math.min(later, Math.max(share('later', capacity), running('later')))
  if (!isExpected('later')) return { lane: 'any', events: free }
  const firstWaits = isExpected('first') || first > running('first')
  if (!firstWaits) return { lane: 'any', events: capacity - first - later }
  const laterRoom = Math.min(share('later', capacity), capacity - running('first')) - later
  if (laterRoom > 0) return { lane: 'later', events: laterRoom }
  return {
    lane: 'first',
    events: isExpected('first') ? Math.min(share('first', capacity) - first, free) : 0,
  }
}
