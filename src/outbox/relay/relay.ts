import type { Database } from '../../database/database.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { createLoopProgress, type LoopProgress } from '../../foundation/loop-progress.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { createClaimFloors, type ClaimFloor } from './claim-floors.ts'
import { claimSize, claimSql, dueClaimSql, orderedClaimSql, orderedPositions } from './claim-sql.ts'
import type { Dispatch } from './claim.ts'
import { createClaims } from './held-events.ts'
import type { Notifier } from './notifier.ts'

/** The relay's current activity, for health. */
export type RelayState = 'stopped' | 'awake' | 'sleeping' | 'standby' | 'polling' | 'failing'

/** Moves events from the outbox to the queues of the subscriptions. */
export interface Relay {
  readonly state: RelayState
  readonly progress: LoopProgress
  /** The outbox may contain events: look now. */
  notify: () => void
  /** Resolves when no claim is open and none will be opened. */
  stop: () => Promise<void>
}

/** While busy, events are collected for this long, because a claim costs the same for one event as for several. */
const collectPauseMs = 5

/** The pause of an awake relay between claims, and the number of rounds without load after which it tries to sleep. */
const busyPauseMs = 2
const quietRoundsBeforeSleep = 10

/** The pause of a relay that cannot sleep yet. */
const retryPauseMs = 10

/** A relay that is not the leader leaves single events to the leader, and claims after this long. */
const standbyDelayMs = 25
const standbyPollMs = 2000

/** Due events that are locked are tried again after this long. */
const lockedPauseMs = 50

/** Without notifications, how often a relay polls: more often while it finds events. */
const busyPollMs = 50
const idlePollMs = 500

/** The longest pause, in case a notification was lost. */
const safetyPollMs = 30_000

/** Maximum number of subscriptions whose held events are retried between two claims. */
const maxHeldTries = 32

const isPast = (ms: number | undefined): boolean => ms !== undefined && ms <= 0

/** Starts claiming. Any number of relays may run on one database. */
export function startRelay(
  database: Database,
  notifier: Notifier,
  dispatch: Dispatch,
  logger: BusLogger,
): Relay {
  const progress = createLoopProgress('relay')
  let stopping = false
  let wasNotified = false
  let state: RelayState = 'awake'
  let dispatchedCount = 0
  let failures = 0
  let quietRounds = 0
  const load = createLoadMeter()
  const floors = createClaimFloors()
  const claims = createClaims(database, dispatch, logger)
  let nextDueMs = safetyPollMs
  let isOrderLocked = false
  let interrupt: () => void = () => {}

  /** Waits until the time is over, a notification arrives, or the relay is stopped. */
  async function rest(durationMs: number, wakeOnNotification: boolean): Promise<void> {
    if (stopping || (wakeOnNotification && wasNotified)) return
    progress.note(durationMs)
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, durationMs)
      interrupt = () => {
        if (!stopping && !wakeOnNotification) return
        clearTimeout(timer)
        resolve()
      }
    })
    interrupt = () => {}
    progress.note()
  }

  /** Called after each claim, not only before a rest: under a steady load the relay can go for hours without a rest. */
  function noteSuccess(): void {
    failures = 0
    progress.note()
    if (state === 'failing') state = 'awake'
  }

  /** Claims until nothing is ready. Resolves to whether anything was. */
  async function drain(): Promise<boolean> {
    const countBefore = dispatchedCount
    const beganNotified = wasNotified
    // The position after the last full claim.
    let cursor: bigint | undefined
    isOrderLocked = false
    while (!stopping) {
      wasNotified = false
      const floor = floors.next(cursor)
      const claim = await claims.make('relay', (patience) => claimSql(floor, patience))
      if (claim.count > 0) {
        floors.noteClaimed(claim.lastPosition)
        await database.faultPoint?.('relay.workers-woken')
      }
      const isOrderedReady = claim.orderedReady || isPast(claim.orderedDueMs)
      const orderedCount = isOrderedReady ? await claimOrdered(floor) : 0
      const isDue = isPast(claim.dueMs)
      const dueCount = isDue
        ? (await claims.make('relay-due', (patience) => dueClaimSql(floor, patience))).count
        : 0
      let retriedCount = 0
      for (let tries = 0; tries < maxHeldTries; tries += 1) {
        const got = await claims.retryHeld()
        retriedCount += got
        if (got === 0) break
      }
      const count = claim.count + orderedCount + dueCount
      dispatchedCount += count
      if (claim.sweep !== undefined) {
        floors.noteSweep(floor, claim.sweep, claim.readMs)
        claims.noteHeld(claim.sweep.heldFor)
      }
      // Ready events that could not be claimed are locked: somebody cancels them, or another relay is claiming them.
      const isLocked = (isDue && dueCount === 0) || (isOrderedReady && orderedCount === 0 && !isOrderLocked)
      nextDueMs = isLocked
        ? lockedPauseMs
        : Math.min(claim.dueMs ?? safetyPollMs, claim.orderedDueMs ?? safetyPollMs)
      load.note(count)
      if (load.isBusy && notifier.sleeping) await notifier.wake()
      noteSuccess()
      if (claim.count === claimSize) {
        // The next sweep finds events below that are committed late.
        cursor = claim.lastPosition + 1n
        continue
      }
      if (isOrderLocked) break
      if (cursor === undefined && orderedCount + dueCount + retriedCount === 0) {
        // A publisher that notified may have committed late, below the floor. Only the leader sweeps for that.
        const foundNothing = floor.level === 'recent' && dispatchedCount === countBefore
        if (!(beganNotified && foundNothing && notifier.leading && floors.sweepAfterNotification())) break
      }
      cursor = undefined
    }
    return dispatchedCount > countBefore
  }

  /** Claims events with an ordering key, unless another relay is doing so: then this one retries soon. */
  async function claimOrdered(floor: ClaimFloor): Promise<number> {
    const claim = await claims.make('relay-ordered', (patience) => orderedClaimSql(floor, patience))
    if (claim.count > 0) floors.noteClaimed(claim.lastPosition - orderedPositions)
    isOrderLocked = claim.isOrderLocked
    return claim.count
  }

  async function restAfter(foundAny: boolean): Promise<void> {
    if (isOrderLocked) return rest(retryPauseMs, false)
    const pauseMs = load.isBusy ? collectPauseMs : busyPauseMs
    if (wasNotified && !notifier.sleeping) return rest(pauseMs, false)
    if (wasNotified) return
    const dueMs = Math.max(0, Math.min(nextDueMs, safetyPollMs, floors.restMs, claims.heldRestMs))
    if (!notifier.connected) {
      state = notifier.polling ? 'polling' : 'awake'
      return rest(Math.min(dueMs, foundAny ? busyPollMs : idlePollMs), true)
    }
    if (!notifier.leading && !(await notifier.lead())) {
      state = 'standby'
      await rest(Math.min(dueMs, standbyPollMs), true)
      return rest(wasNotified ? standbyDelayMs : 0, false)
    }
    if (notifier.sleeping) {
      state = 'sleeping'
      return rest(dueMs, true)
    }
    state = 'awake'
    quietRounds = load.isBusy ? 0 : quietRounds + 1
    if (dispatchedCount > 0 && quietRounds < quietRoundsBeforeSleep) return rest(pauseMs, false)
    if (!(await notifier.sleep())) return rest(Math.min(dueMs, retryPauseMs), false)
    // Asleep now. Claim once more: events that were published before the lock was granted sent no notification.
    floors.sweepBeforeSleep()
    await database.faultPoint?.('relay.asleep')
  }

  async function run(): Promise<void> {
    while (!stopping) {
      try {
        await restAfter(await drain())
        failures = 0
      } catch (error) {
        state = 'failing'
        floors.reset()
        const delayMs = failureDelayMs(failures)
        failures += 1
        logger.error(
          { reason: reasonOf(error), failures, delayMs },
          'the relay failed to dispatch events, retrying',
        )
        await rest(delayMs, false)
      }
    }
  }

  const running = run()

  return {
    get state() {
      return state
    },
    progress,
    notify() {
      wasNotified = true
      interrupt()
    },
    async stop() {
      stopping = true
      interrupt()
      await running
      progress.rest()
      state = 'stopped'
    },
  }
}

/**
 * From this many events in one claim on, publishers are told not to send notifications, because sending one takes a
 * database-wide lock.
 */
const busyClaimSize = 16

/** This many events within this time also count as busy, even if each claim was small. */
const busyWindowMs = 50
const busyWindowEvents = 50

/** Measures the load of a relay by the events that it claims. */
interface LoadMeter {
  /** While true, publishers need not send notifications, because the relay claims again soon. */
  readonly isBusy: boolean
  /** Counts the events of a claim. */
  note: (eventCount: number) => void
}

function createLoadMeter(): LoadMeter {
  let windowBeganAt = 0
  let windowCount = 0
  let busyAt = Number.NEGATIVE_INFINITY
  return {
    get isBusy() {
      return performance.now() - busyAt < busyWindowMs * 2
    },
    note(eventCount) {
      const now = performance.now()
      if (now - windowBeganAt > busyWindowMs) {
        windowBeganAt = now
        windowCount = 0
      }
      windowCount += eventCount
      if (eventCount >= busyClaimSize || windowCount >= busyWindowEvents) busyAt = now
    },
  }
}
