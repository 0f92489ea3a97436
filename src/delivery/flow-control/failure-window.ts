import type { StoredEvent } from '../../events/envelope.ts'
import type { CircuitBreaker } from '../subscriptions/subscription.ts'
import type { EventOutcome } from '../attempts/outcome.ts'

/** How long a tenant's latest attempt counts. */
const memoryMs = 60_000

/** Maximum number of tenants that are remembered: the latest ones. */
const maxTenants = 1000

/** With fewer failed events than this, the events themselves are assumed to be the cause. */
const minFailedEvents = 4

/** The latest attempts of a subscription in this process: whether nearly all of them failed. */
export interface FailureWindow {
  /** Adds the outcome of an attempt. Returns the reason to open the circuit breaker now, if there is one. */
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
