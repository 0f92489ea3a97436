import type { StoredEvent } from '../../events/envelope.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { Subscription } from '../subscriptions/subscription.ts'

/** A handler that reacts to its signal has ended by then; otherwise it is reported. */
const patienceMs = 1000

/** A handler that is still running after its attempt ended by a timeout or a lost claim. */
export interface Overrun {
  /** Resolves when the handler has ended. */
  readonly ended: Promise<void>
}

/** The handlers of a subscription in this process that are still running after their attempt. */
export interface Overruns {
  readonly count: number
  /**
   * Counts a handler until it has ended. If it ignores its signal, that is logged once.
   *
   * @param onIgnored - called if it ignores its signal
   */
  watch: (event: StoredEvent, attempt: number, overrun: Overrun, onIgnored?: () => void) => void
}

/** @param onChange - called with the tenant when a handler overruns (1), and when it has ended (-1) */
export function createOverruns(
  subscription: Subscription,
  logger: BusLogger,
  onChange: (tenantId: string, change: 1 | -1) => void,
): Overruns {
  let count = 0
  return {
    get count() {
      return count
    },
    watch(event, attempt, { ended }, onIgnored) {
      count += 1
      onChange(event.tenantId, 1)
      const beganAt = performance.now()
      let ignored = false
      const fields = {
        subscription: subscription.name,
        id: event.id,
        type: event.type,
        tenantId: event.tenantId,
        ...(event.orderingKey === undefined ? {} : { orderingKey: event.orderingKey }),
        attempt,
      }
      const timer = setTimeout(() => {
        ignored = true
        logger.warn(
          { ...fields, timeoutSeconds: subscription.timeoutSeconds },
          'a handler ignores its signal and is still running after its attempt: it occupies its slot, and its key if it has one',
        )
        onIgnored?.()
      }, patienceMs)
      // Does not keep the process alive.
      timer.unref()
      void ended.then(() => {
        count -= 1
        onChange(event.tenantId, -1)
        clearTimeout(timer)
        if (!ignored) return
        const overrunMs = Math.round(performance.now() - beganAt)
        logger.info({ ...fields, overrunMs }, 'a handler that ignored its signal has ended')
      })
    },
  }
}
