import type { StoredEvent } from '../../events/envelope.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { describeFailure } from '../attempts/failure.ts'
import type { EventOutcome } from '../attempts/outcome.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import type { CircuitBreaker } from '../subscriptions/subscription.ts'
import {
  claimProbe,
  closeCircuit,
  openCircuit,
  readStates,
  type SubscriptionState,
} from './subscription-state.ts'

/** Minimum delay of an event whose probe failed. */
export const failedProbeDelaySeconds = 10

/** How long the circuit breaker waits before it asks again to open, if only one of several tenants fails. */
const refusalMs = 5000

/** Whether the worker of a subscription may start events: not while it is paused, or its circuit breaker is open. */
export interface PauseAndBreaker {
  /** No event may be started, except a probe. */
  readonly isHalted: boolean
  /** While the circuit breaker is open: a job must be fetched, to probe with one event of it. */
  readonly wantsProbe: boolean
  /**
   * Applies the database's state, unless a newer one is known. Returns whether it did. `readAt` is when the state was
   * requested, in terms of `performance.now()`.
   */
  apply: (state: SubscriptionState, readAt: number) => boolean
  /** Adds the outcome of an attempt that counts. */
  recordOutcome: (outcome: EventOutcome, event: StoredEvent) => void
  /** Returns whether the starting job is the probe. */
  takeProbe: () => boolean
  /** The probe succeeded, failed, or said nothing about the subscription. */
  endProbe: (verdict: boolean | undefined, thrown: unknown) => Promise<void>
  stop: () => void
}

/** @param onChange - called when the subscription was halted, or may start events again */
export function createPauseAndBreaker(
  { database, subscription, subscriptionId, logger }: SubscriptionContext,
  initial: SubscriptionState,
  onChange: () => void,
): PauseAndBreaker {
  const { circuitBreaker } = subscription
  const window = circuitBreaker === false ? undefined : createFailureWindow(circuitBreaker)
  let paused = initial.paused
  let isOpen = false
  let openedAt = performance.now()
  let probe: 'none' | 'wanted' | 'running' = 'none'
  let changedAt = Number.NEGATIVE_INFINITY
  let appliedReadAt = Number.NEGATIVE_INFINITY
  let opening = false
  let refusedAt = Number.NEGATIVE_INFINITY
  let timer: NodeJS.Timeout | undefined
  let stopped = false

  function setOpen(open: boolean): void {
    if (open && !isOpen) openedAt = performance.now()
    isOpen = open
    window?.reset()
    changedAt = performance.now()
    if (open) return
    clearTimeout(timer)
    probe = 'none'
  }

  function halt(): void {
    setOpen(true)
    onChange()
  }

  function scheduleProbe(inMs: number): void {
    clearTimeout(timer)
    if (stopped || circuitBreaker === false) return
    // No probe is ever scheduled later than this: see claimProbe.
    const longestMs = Math.max(circuitBreaker.probeSeconds, circuitBreaker.maxProbeSeconds) * 1000
    timer = setTimeout(() => void tryProbe(0), Math.min(inMs, longestMs) + 5).unref()
  }

  /** Every process tries at the same time, and one of them succeeds. */
  async function tryProbe(failures: number): Promise<void> {
    if (!isOpen || stopped || circuitBreaker === false) return
    const { probeSeconds, maxProbeSeconds } = circuitBreaker
    try {
      if (
        !paused &&
        probe === 'none' &&
        (await claimProbe(database, subscriptionId, probeSeconds, maxProbeSeconds))
      ) {
        if (isOpen) probe = 'wanted'
        onChange()
      }
      await refresh()
    } catch (error) {
      const delayMs = failureDelayMs(failures)
      logger.debug(
        { subscription: subscription.name, reason: reasonOf(error), delayMs },
        'a circuit breaker could not be read',
      )
      clearTimeout(timer)
      timer = setTimeout(() => void tryProbe(failures + 1), delayMs).unref()
    }
  }

  async function refresh(): Promise<void> {
    const readAt = performance.now()
    const state = (await readStates(database, [subscriptionId])).get(subscriptionId)
    if (state !== undefined) breaker.apply(state, readAt)
  }

  /** @param last - the event whose attempt failed last */
  async function open({ reason, tenantIds }: OpenReason, last: StoredEvent): Promise<void> {
    const probeSeconds = circuitBreaker === false ? 0 : circuitBreaker.probeSeconds
    const isAccepted = await openCircuit(database, subscriptionId, { reason, tenantIds, probeSeconds })
    if (!isAccepted) {
      // Other tenants publish too, and none of their events has failed.
      refusedAt = performance.now()
      return
    }
    if (!isOpen) halt()
    logger.error(
      {
        subscription: subscription.name,
        id: last.id,
        type: last.type,
        // Where only one tenant's events fail.
        tenantId: tenantIds.length === 1 ? tenantIds[0] : undefined,
        probeInSeconds: probeSeconds,
        reason,
      },
      'nearly every attempt of a subscription fails: its circuit breaker has opened',
    )
    changedAt = performance.now()
    scheduleProbe(probeSeconds * 1000)
  }

  const breaker: PauseAndBreaker = {
    get isHalted() {
      return paused || isOpen
    },
    get wantsProbe() {
      return !paused && isOpen && probe === 'wanted'
    },
    apply(state, readAt) {
      // Reads may be answered out of order.
      if (stopped || readAt < changedAt || readAt < appliedReadAt) return false
      appliedReadAt = readAt
      const was = { paused, isOpen }
      paused = state.paused
      if (paused !== was.paused)
        logger.info(
          { subscription: subscription.name, by: state.pausedBy, reason: state.pauseReason },
          paused ? 'a subscription was paused' : 'a subscription was resumed',
        )
      if (state.probeInMs === undefined && isOpen) setOpen(false)
      else if (state.probeInMs !== undefined && window !== undefined) {
        if (!isOpen) setOpen(true)
        scheduleProbe(state.probeInMs)
      }
      if (paused !== was.paused || isOpen !== was.isOpen) onChange()
      return true
    },
    recordOutcome(outcome, event) {
      if (isOpen || window === undefined) return
      const trip = window.record(outcome, event)
      if (trip === undefined) return
      window.reset()
      const isOneTenant = trip.tenantIds.length === 1
      if (isOneTenant && (opening || performance.now() - refusedAt < refusalMs)) return
      // Immediately, so that nothing more is started meanwhile, unless it may be a problem of that tenant alone.
      if (!isOneTenant) halt()
      opening = true
      open(trip, event)
        .catch((error: unknown) => {
          logger.warn(
            { subscription: subscription.name, reason: reasonOf(error) },
            'a circuit breaker could not be opened',
          )
          setOpen(false)
          onChange()
        })
        .finally(() => {
          opening = false
        })
    },
    takeProbe() {
      if (!breaker.wantsProbe) return false
      probe = 'running'
      return true
    },
    async endProbe(verdict, thrown) {
      if (probe === 'running') probe = verdict === undefined ? 'wanted' : 'none'
      if (verdict === true && isOpen) {
        const openMs = Math.round(performance.now() - openedAt)
        setOpen(false)
        onChange()
        if (await closeCircuit(database, subscriptionId))
          logger.info(
            { subscription: subscription.name, openMs },
            'an attempt succeeded: the circuit breaker of a subscription has closed',
          )
      } else if (verdict === undefined) onChange()
      else if (isOpen) {
        logger.warn(
          { subscription: subscription.name, reason: describeFailure(1, thrown).message },
          'the circuit breaker of a subscription stays open: the event that was tried has failed',
        )
      }
    },
    stop() {
      stopped = true
      clearTimeout(timer)
    },
  }
  if (initial.probeInMs !== undefined && window !== undefined) {
    isOpen = true
    scheduleProbe(initial.probeInMs)
  }
  return breaker
}

/** How long a tenant's latest attempt counts. */
const memoryMs = 60_000

/** Maximum number of tenants that are remembered: the latest ones. */
const maxTenants = 1000

/** With fewer failed events than this, the events themselves are assumed to be the cause. */
const minFailedEvents = 4

/** Why a circuit breaker should open. */
interface OpenReason {
  readonly reason: string
  /** The tenants whose events failed. */
  readonly tenantIds: readonly string[]
}

/** The latest attempts of a subscription in this process: whether nearly all of them failed. */
export interface FailureWindow {
  /** Adds the outcome of an attempt. Returns the reason to open the circuit breaker now, if there is one. */
  record: (outcome: EventOutcome, event: StoredEvent) => OpenReason | undefined
  /** Forgets the attempts so far. */
  reset: () => void
}

interface Attempt {
  readonly eventId: string
  readonly tenantId: string
  readonly failed: boolean
}

/**
 * A subscription fails when nearly all of its latest attempts did, at several events, and no tenant's latest attempt of
 * the last minute succeeded: failures of some tenants must not stop the others. A NonRetryableError or an expired event
 * says nothing about the handler.
 */
export function createFailureWindow({ windowSize, failureRatio }: CircuitBreaker): FailureWindow {
  let window: Attempt[] = []
  /** The result and time of each tenant's latest attempt; the latest tenant last. */
  const latest = new Map<string, { readonly failed: boolean; readonly at: number }>()

  function noteTenant({ tenantId, failed }: Attempt, at: number): void {
    latest.delete(tenantId)
    latest.set(tenantId, { failed, at })
    for (const [oldest, known] of latest) {
      if (latest.size <= maxTenants && at - known.at < memoryMs) break
      latest.delete(oldest)
    }
  }

  return {
    record(outcome, { id, tenantId }) {
      if (outcome.delivered ? outcome.expired === true : outcome.final) return undefined
      const attempt = { eventId: id, tenantId, failed: !outcome.delivered }
      noteTenant(attempt, performance.now())
      window.push(attempt)
      if (window.length > windowSize) window.shift()
      if (outcome.delivered || window.length < windowSize) return undefined
      const failed = window.filter((each) => each.failed)
      if (failed.length < windowSize * failureRatio) return undefined
      const eventCount = new Set(failed.map(({ eventId }) => eventId)).size
      if (eventCount < Math.min(minFailedEvents, windowSize)) return undefined
      for (const known of latest.values()) if (!known.failed) return undefined
      return { reason: outcome.failure.message.slice(0, 500), tenantIds: [...latest.keys()] }
    },
    reset() {
      window = []
    },
  }
}
