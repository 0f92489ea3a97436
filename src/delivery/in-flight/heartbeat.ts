import type { PgBoss } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { ActiveJob } from './active-job.ts'

/**
 * Tells the database that a worker is alive, and hears of the jobs that are another worker's by now, or may be: those for
 * which the database was not reached as long as a claim lasts.
 */
export interface Heartbeat {
  /** To be called every second. */
  tick: () => void
  touch: () => Promise<void>
}

export function createHeartbeat(
  boss: PgBoss,
  queue: string,
  usualSeconds: number,
  active: Iterable<ActiveJob>,
  lose: (job: ActiveJob) => void,
  expire: (job: ActiveJob) => void,
  logger: BusLogger,
): Heartbeat {
  let lastTouchAt = performance.now()

  async function touch(): Promise<void> {
    const jobs = [...active].filter((job) => !job.done && job.left.size > 0)
    if (jobs.length === 0) return
    const claims = jobs.map(({ claim }) => ({ id: claim.id, retryCount: claim.retryCount }))
    const touchedAt = performance.now()
    const { settled = [] } = (await boss.touch(queue, claims)) as { settled?: readonly string[] }
    const alive = new Set(settled)
    for (const job of jobs) {
      if (alive.has(job.claim.id)) job.confirmedAt = touchedAt
      else if (!job.done && !job.completing && job.left.size > 0) lose(job)
    }
  }

  return {
    touch,
    tick() {
      let seconds = usualSeconds
      const now = performance.now()
      for (const job of active) {
        seconds = Math.min(seconds, job.heartbeatSeconds)
        // From now on another worker may have it, and nobody can be asked.
        if (!job.done && !job.cutShort && now - job.confirmedAt > job.heartbeatSeconds * 1000) expire(job)
      }
      if (performance.now() - lastTouchAt <= (seconds * 1000) / 3) return
      lastTouchAt = performance.now()
      touch().catch((error: unknown) =>
        logger.warn({ reason: reasonOf(error) }, 'a heartbeat could not be written'),
      )
    },
  }
}
