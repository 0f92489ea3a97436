import { createClaimFloors, type ClaimFloor } from './claim-floors.ts'
import { claimSql, dueClaimSql, heldClaimSql, claimSize, type ClaimPatience } from './claim-sql.ts'
import { claimOnce, type Claim, type ClaimProtocol, type Dispatch } from './claim.ts'
import type { Database } from '../../database/database.ts'
import { createLoadMeter } from './load-meter.ts'
import type { Notifier } from './notifier.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { createHeldEvents } from './held-events.ts'
import { orderedClaimSql, orderedPositions } from './ordered-claim.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { isLockTimeout } from '../../database/database-errors.ts'

export { claimRowsSql } from './claim-sql.ts'
export type { ClaimedEvent, Dispatch, DispatchTerms } from './claim.ts'

/** The relay's current activity, for health. */
export type RelayState = 'stopped' | 'awake' | 'sleeping' | 'standby' | 'polling' | 'failing'

/** Moves events from the outbox to the queues of the subscriptions. */
export interface Relay {
  readonly state: RelayState
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

/** How long claims of keyed events stay careful after a lock was met. */
const carefulForMs = 5000

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
  let stopping = false
  let wasNotified = false
  let state: RelayState = 'awake'
  let dispatchedCount = 0
  let failures = 0
  let quietRounds = 0
  const load = createLoadMeter()
  const floors = createClaimFloors()
  const held = createHeldEvents()
  let nextDueMs = safetyPollMs
  let orderCarefulUntil = Number.NEGATIVE_INFINITY
  let isOrderLocked = false
  let interrupt: () => void = () => {}

  /** Waits until the time is over, a notification arrives, or the relay is stopped. */
  async function rest(durationMs: number, wakeOnNotification: boolean): Promise<void> {
    if (stopping || (wakeOnNotification && wasNotified)) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, durationMs)
      interrupt = () => {
        if (!stopping && !wakeOnNotification) return
        clearTimeout(timer)
        resolve()
      }
    })
    interrupt = () => {}
  }

  /** Called after each claim, not only before a rest: under a steady load the relay can go for hours without a rest. */
  function noteSuccess(): void {
    failures = 0
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
      const claim = await claimAndDispatch('relay', (patience) => claimSql(floor, patience))
      if (claim.count > 0) await database.faultPoint?.('relay.workers-woken')
      const isOrderedReady = claim.orderedReady || isPast(claim.orderedDueMs)
      const orderedCount = isOrderedReady ? await claimAndDispatchOrdered(floor) : 0
      const isDue = isPast(claim.dueMs)
      const dueCount = isDue
        ? (await claimAndDispatch('relay-due', (patience) => dueClaimSql(floor, patience))).count
        : 0
      let retriedCount = 0
      for (let tries = 0; tries < maxHeldTries; tries += 1) {
        const got = await retryHeld()
        retriedCount += got
        if (got === 0) break
      }
      const count = claim.count + orderedCount + dueCount
      dispatchedCount += count
      if (claim.sweep !== undefined) {
        floors.noteSweep(floor, claim.sweep, claim.readMs)
        held.noteAll(claim.sweep.heldFor)
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

  /**
   * One claim. If it meets a lock that is held for long, it is repeated carefully: events that cannot be dispatched now
   * are held back in the outbox for the subscription that needs the lock, and everything else continues.
   */
  async function claimAndDispatch(
    protocol: ClaimProtocol,
    statements: (patience: ClaimPatience) => string,
    retakenFor?: number,
  ): Promise<Claim> {
    const claimAs = async (patience: ClaimPatience): Promise<Claim> =>
      claimOnce(database, statements(patience), dispatch, protocol, {
        careful: patience === 'careful',
        retakenFor,
        patient: held.isPatient,
        isClosed: (subscriptionId) => held.isClosed(subscriptionId),
        onHeld: (subscriptionId, what) => held.note(subscriptionId, what),
      })
    const isOrdered = protocol === 'relay-ordered'
    const claim = await claimAs(
      isOrdered && performance.now() < orderCarefulUntil ? 'careful' : 'normal',
    ).catch(async (error: unknown) => {
      if (!isLockTimeout(error) || retakenFor !== undefined) throw error
      if (isOrdered) orderCarefulUntil = performance.now() + carefulForMs
      return claimAs('careful')
    })
    if (claim.count > 0) await database.faultPoint?.(`${protocol}.committed`)
    claim.afterCommit()
    if (claim.count > 0 && protocol === 'relay') floors.noteClaimed(claim.lastPosition)
    if (claim.count > 0 && isOrdered) floors.noteClaimed(claim.lastPosition - orderedPositions)
    return claim
  }

  /** Claims events with an ordering key, unless another relay is doing so: then this one retries soon. */
  async function claimAndDispatchOrdered(floor: ClaimFloor): Promise<number> {
    const claim = await claimAndDispatch('relay-ordered', (patience) => orderedClaimSql(floor, patience))
    isOrderLocked = claim.isOrderLocked
    return claim.count
  }

  /** Retries the held events of one subscription if it is time. Resolves to the number of events dispatched. */
  async function retryHeld(): Promise<number> {
    const due = held.next()
    if (due === undefined) return 0
    const { subscriptionId, cursor } = due
    const claim = await claimAndDispatch(
      'relay-held',
      () => heldClaimSql(subscriptionId, cursor),
      subscriptionId,
    ).catch((error: unknown) => {
      if (!isLockTimeout(error)) throw error
      return undefined
    })
    const change = held.noteTry(subscriptionId, claim)
    if (change === 'blocked')
      logger.warn(
        { subscriptionId },
        'a lock blocks the events of a subscription: they wait in the outbox until it is released',
      )
    else if (change === 'resumed')
      logger.info({ subscriptionId }, 'the events that waited for a lock were dispatched')
    return claim?.count ?? 0
  }

  async function restAfter(foundAny: boolean): Promise<void> {
    if (isOrderLocked) return rest(retryPauseMs, false)
    const pauseMs = load.isBusy ? collectPauseMs : busyPauseMs
    if (wasNotified && !notifier.sleeping) return rest(pauseMs, false)
    if (wasNotified) return
    const dueMs = Math.max(0, Math.min(nextDueMs, safetyPollMs, floors.restMs, held.restMs))
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
        logger.error({ err: error, failures, delayMs }, 'the relay failed to dispatch events, retrying')
        await rest(delayMs, false)
      }
    }
  }

  const running = run()

  return {
    get state() {
      return state
    },
    notify() {
      wasNotified = true
      interrupt()
    },
    async stop() {
      stopping = true
      interrupt()
      await running
      state = 'stopped'
    },
  }
}
