import type { StoredEvent } from '../../events/envelope.ts'
import type { CircuitBreaker } from '../subscriptions/subscription.ts'
import type { EventOutcome } from '../attempts/outcome.ts'

/** How long a tenant's latest attempt counts. */
const memoryMs = 60_000

/** Tenants that are remembered: the latest. */
const maxTenants = 1000

/** With fewer failed events than this, the events themselves are taken to be the cause. */
const minFailedEvents = 4

/** The latest attempts of a subscription in this process: whether nearly all of them failed. */
export interface FailureWindow {
  /** Takes the outcome of an attempt. Returns the reason to open the circuit breaker now, if there is one. */
  record: (
    outcome: EventOutcome,
    event: StoredEvent,
  ) => { readonly reason: string; readonly tenantIds: readonly string[] } | undefined
  /** Forgets the attempts so far. */
  reset: () => void
}

interface Attempt {
  readonly eventId: string
  readonly tenantId: string
  readonly failed: boolean
}

/**
 * A subscription fails everything when nearly all of its latest attempts did, at several events, and no tenant's latest
 * attempt of the last minute succeeded: what fails for some tenants only must not stop the others. An event that no attempt can
 * help (NonRetryableError), or whose time has passed, says nothing about the handler.
 */
export function createFailureWindow({ windowSize, failureRatio }: CircuitBreaker): FailureWindow {
  let window: Attempt[] = []
  /** How each tenant's latest attempt went, and when; the latest tenant last. */
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
