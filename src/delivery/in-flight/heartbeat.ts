import { reasonOf } from '../../foundation/error-reason.ts'
import { fence } from '../jobs/job-claim.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import type { InFlightJob } from './jobs-in-flight.ts'

/**
 * Tells the database that a worker is alive, and tells jobs when another worker has taken them over, or may have: when the database
 * was not reached for as long as a claim lasts.
 */
export interface Heartbeat {
  /** To be called every second. */
  tick: () => void
  /** Confirms the claims of all jobs in flight. */
  touch: () => Promise<void>
}

export function createHeartbeat(
  { boss, queue, subscription, logger }: SubscriptionContext,
  inFlight: Iterable<InFlightJob>,
): Heartbeat {
  let lastTouchAt = performance.now()

  async function touch(): Promise<void> {
    const jobs = [...inFlight].filter((job) => !job.isDone && job.remaining.size > 0)
    if (jobs.length === 0) return
    const touchedAt = performance.now()
    const { settled = [] } = (await boss.touch(
      queue,
      jobs.map(({ claim }) => fence(claim)),
    )) as { settled?: readonly string[] }
    const current = new Set(settled)
    for (const job of jobs) {
      if (current.has(job.claim.id)) job.confirmedAt = touchedAt
      else if (!job.isDone && !job.isCompleting && job.remaining.size > 0) job.onClaimLost()
    }
  }

  return {
    touch,
    tick() {
      let seconds = subscription.heartbeatSeconds
      const now = performance.now()
      for (const job of inFlight) {
        seconds = Math.min(seconds, job.heartbeatSeconds)
        if (!job.isDone && !job.isInterrupted && now - job.confirmedAt > job.heartbeatSeconds * 1000)
          job.onClaimExpired()
      }
      if (performance.now() - lastTouchAt <= (seconds * 1000) / 3) return
      lastTouchAt = performance.now()
      touch().catch((error: unknown) =>
        logger.warn({ reason: reasonOf(error) }, 'a heartbeat could not be written'),
      )
    },
  }
}
