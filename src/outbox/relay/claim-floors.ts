/** The positions from which a claim reads the parts of the outbox. */
export interface ClaimFloor {
  /**
   * `recent`: above the events claimed a moment ago, which includes nearly everything. `sweep`: above the events that
   * are known to be gone for good. `full`: everything.
   */
  readonly level: 'recent' | 'sweep' | 'full'
  readonly position: bigint
  /** For events with an ordering key, as a value of the sequence: never above the events that are known to be gone for good. */
  readonly orderedPosition: bigint
  /** For scheduled events without a key: seconds since 1970. */
  readonly due: number
  /** For scheduled events with a key: never above the events that are known to be gone for good. */
  readonly orderedDue: number
  /** The start time of the server for which these floors hold. */
  readonly server: string
  /** The next floor, not yet certain: a sweep checks whether anything remains below it. */
  readonly candidate: { readonly position: bigint; readonly due: number } | undefined
}

/** What a sweep learned about the floors. A `recent` claim learns nothing. */
export interface SweepResult {
  readonly server: string
  /** The database's time in seconds since 1970, or the time of the first due event that is still there. */
  readonly now: number
  /** Other transactions that had written to the outbox, or were about to, before the claim, and had not ended. */
  readonly writers: readonly string[]
  /** Whether nothing remained below the candidate. */
  readonly isClean: boolean
  /** Whether ready rows remained: other transactions have locked them, and may release them without a notification. */
  readonly isLeftBehind: boolean
}

/**
 * How often a claim sweeps while events arrive: the longest delay of an event that was committed late, below the recent
 * floor.
 */
const sweepIntervalMs = 250

/** The recent floor lags by this many milliseconds, or up to twice as many: most transactions commit sooner after publishing. */
const recentLagMs = 100

/** How often everything is read. No event should be below all floors. */
const fullIntervalMs = 30_000

/** Maximum share of the time that sweeps take, however much there is to read. */
const maxSweepShare = 0.05

interface Candidate {
  readonly position: bigint
  readonly due: number
  readonly writers: ReadonlySet<string>
}

/**
 * Determines where claims start reading. While any open transaction could still see deleted rows, PostgreSQL keeps
 * their index entries, and a claim that starts at the beginning would read them all. Claims therefore start above what
 * was claimed a moment ago. Transactions may commit later than the positions of their events suggest: a sweep finds
 * events below the floor, four times a second, after a notification that led to nothing, and before the relay sleeps.
 *
 * A sweep starts above the events that are certainly gone for good, because otherwise events with an ordering key would
 * lose their order. Every writer holds a lock on the outbox until its transaction ends. If all writers that held it
 * when a position had been allocated have ended, and nothing remains below that position, nothing will ever appear
 * there. A publisher's transaction that stays open keeps this floor in place: then sweeps and claims of keyed events
 * read more, other claims do not.
 */
export interface ClaimFloors {
  /** The floor of the next claim; at `cursor` if the last claim returned as many events as a claim may. */
  next: (cursor: bigint | undefined) => ClaimFloor
  /** Records the highest claimed position, as a value of the sequence. */
  noteClaimed: (sequence: bigint) => void
  noteSweep: (floor: ClaimFloor, result: SweepResult, durationMs: number) => void
  /** Makes the next claim a sweep: after it nothing is read until a notification arrives. */
  sweepBeforeSleep: () => void
  /** Makes the next claim a sweep, unless sweeps are slow and one was made just now. Returns whether it will be one. */
  sweepAfterNotification: () => boolean
  /** Starts from scratch, because the server may be another one. */
  reset: () => void
  /** How long the relay may rest before it must sweep. */
  readonly restMs: number
}

export function createClaimFloors(now: () => number = () => performance.now()): ClaimFloors {
  let certain = { position: 0n, due: 0 }
  let recent = certain
  let mark = certain
  let candidate: Candidate | undefined
  let server = ''
  let highest = 0n
  let markedAt = Number.NEGATIVE_INFINITY
  let highestBefore = 0n
  let sweptAt = Number.NEGATIVE_INFINITY
  let fullAt = Number.NEGATIVE_INFINITY
  let sweepMs = 0
  let fullMs = 0
  let requested: ClaimFloor['level'] = 'full'
  let owesSweep = false

  const intervalMs = (least: number, duration: number): number => Math.max(least, duration / maxSweepShare)

  function choose(): ClaimFloor['level'] {
    if (requested === 'full') return requested
    if (now() - fullAt >= intervalMs(fullIntervalMs, fullMs)) return 'full'
    const isDue = requested === 'sweep' || now() - sweptAt >= intervalMs(sweepIntervalMs, sweepMs)
    return isDue ? 'sweep' : 'recent'
  }

  function reset(): void {
    certain = { position: 0n, due: 0 }
    recent = certain
    mark = certain
    candidate = undefined
    highest = 0n
    server = ''
    requested = 'full'
  }

  /** Uses the result of a sweep to decide about the candidate floor. */
  function advance({ writers, isClean, now: databaseNow }: SweepResult): void {
    if (candidate !== undefined && isClean && !writers.some((writer) => candidate?.writers.has(writer))) {
      certain = { position: candidate.position, due: candidate.due }
      candidate = undefined
    }
    // Allocated, and past, before these writers were read.
    candidate ??= { position: highestBefore + 1n, due: mark.due, writers: new Set(writers) }
    recent = { ...recent, due: mark.due }
    mark = { ...mark, due: databaseNow }
  }

  function follow(): void {
    if (now() - markedAt < recentLagMs) return
    markedAt = now()
    recent = { ...recent, position: mark.position }
    mark = { ...mark, position: highest + 1n }
  }

  return {
    next(cursor) {
      follow()
      const level = choose()
      highestBefore = highest
      const floor = level === 'full' ? { position: 0n, due: 0 } : certain
      const isRecent = level === 'recent'
      if (isRecent) owesSweep = true
      const from = recent.position > certain.position ? recent.position : certain.position
      return {
        level,
        position: isRecent ? (cursor ?? from) : floor.position,
        orderedPosition: floor.position,
        due: isRecent ? Math.max(recent.due, certain.due) : floor.due,
        orderedDue: floor.due,
        server,
        candidate: isRecent ? undefined : candidate,
      }
    },
    noteClaimed(sequence) {
      if (sequence > highest) highest = sequence
    },
    noteSweep(floor, result, durationMs) {
      if (server !== '' && result.server !== server) {
        reset()
        return
      }
      server = result.server
      sweptAt = now()
      if (floor.level === 'full') {
        fullAt = sweptAt
        fullMs = durationMs
      } else sweepMs = durationMs
      owesSweep = result.isLeftBehind
      requested = 'recent'
      advance(result)
    },
    sweepBeforeSleep() {
      requested = 'sweep'
    },
    sweepAfterNotification() {
      if (now() - sweptAt < intervalMs(0, sweepMs)) return false
      requested = 'sweep'
      return true
    },
    reset,
    get restMs() {
      if (!owesSweep) return Number.POSITIVE_INFINITY
      return Math.max(0, sweptAt + intervalMs(sweepIntervalMs, sweepMs) - now())
    },
  }
}
