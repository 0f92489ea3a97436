/** From where on a claim reads its parts of the outbox. */
export interface ClaimFloor {
  /**
   * `recent`: above what was claimed a second ago, which is where nearly everything is. `sweep`: above what is known to be
   * gone for good. `full`: everything.
   */
  readonly level: 'recent' | 'sweep' | 'full'
  readonly position: bigint
  /** Of events with an ordering key, as the sequence gave it: never above what is known to be gone for good. */
  readonly orderedPosition: bigint
  /** Of scheduled events without a key: seconds since 1970. */
  readonly due: number
  /** The same of those with one: never above what is known to be gone for good. */
  readonly orderedDue: number
  /** When the server started that these are true for. */
  readonly server: string
  /** The next floor, if it is certain: a sweep asks whether anything is left below it. */
  readonly candidate: { readonly position: bigint; readonly due: number } | undefined
}

/** What a claim found out for the floors. Those that are `recent` find out nothing. */
export interface SweepResult {
  readonly server: string
  /** The database's time, in seconds since 1970, or that of the first scheduled event that is due and still there. */
  readonly now: number
  /** The transactions of others that had written to the outbox, or were about to, before the claim, and had not ended. */
  readonly writers: readonly string[]
  /** Whether nothing was left below the candidate. */
  readonly isClean: boolean
  /** Whether rows were left that are ready: others hold them, and may give them back without a ring. */
  readonly isLeftBehind: boolean
}

/** How often a claim sweeps, where events come: late committers below the recent floor wait that long at most. */
const sweepIntervalMs = 250

/** The recent floor is that many milliseconds behind, up to twice: most transactions commit sooner after their publish. */
const recentLagMs = 100

/** How often everything is read: what is below all floors should not be there. */
const fullIntervalMs = 30_000

/** Sweeping takes up this share of the time at most, however much there is to read. */
const maxSweepShare = 0.05

interface Candidate {
  readonly position: bigint
  readonly due: number
  readonly writers: ReadonlySet<string>
}

/**
 * Where claims begin. PostgreSQL keeps the index entries of rows that are gone while any transaction is open that could see them, and
 * a claim that begins at the beginning reads them all. So it begins above what was claimed a moment ago. Transactions commit
 * later than the positions of their events say: what is below is found by a sweep, four times a second, after a ring that
 * found nothing, and before the relay sleeps.
 *
 * A sweep begins above what is gone for good, and that is certain, because events with an ordering key would lose their order
 * else. Whoever writes to the outbox holds its lock until the transaction ends. So when everybody has ended who held it
 * after a position had been given away, and then nothing is left below that position, nothing will ever be there. A
 * publisher's transaction that stays open keeps that floor where it is: then sweeps and claims of keys read more, the others do not.
 */
export interface ClaimFloors {
  /** Where the next claim begins; above `cursor`, where the last one was full. */
  next: (cursor: bigint | undefined) => ClaimFloor
  /** What a claim found, by position as the sequence gave it. */
  noteClaimed: (sequence: bigint) => void
  noteSweep: (floor: ClaimFloor, result: SweepResult, durationMs: number) => void
  /** Has the next claim sweep: after this one nobody looks until somebody rings. */
  sweepBeforeSleep: () => void
  /** Has the next claim sweep, unless sweeping takes long and was done just now. Gives whether it will. */
  sweepAfterNotification: () => boolean
  /** Begins from nothing: the server may be another one. */
  reset: () => void
  /** How long the relay may rest before it has to sweep. */
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

  /** What of the floor that could be the next one is known by now. */
  function advance({ writers, isClean, now: databaseNow }: SweepResult): void {
    if (candidate !== undefined && isClean && !writers.some((writer) => candidate?.writers.has(writer))) {
      certain = { position: candidate.position, due: candidate.due }
      candidate = undefined
    }
    // Given away, and of times gone by, before these writers were looked for.
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
