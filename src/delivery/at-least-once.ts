import type { StoredEvent } from '../events/envelope.ts'
import type { Database } from '../outbox/database.ts'
import { forgive, isSliceOver, type ActiveJob } from './active-job.ts'
import type { RunningAttempt } from './attempt.ts'
import { hasExpired, isErased } from './event-store.ts'
import type { Gate } from './gate.ts'
import { erasedBefore, eventNotFound, expiredBefore, toOutcome } from './outcome.ts'
import type { EventOutcome } from './settlement.ts'
import type { Settler } from './settler.ts'
import type { TenantLimit } from './tenant-limit.ts'

/** What a worker lends to the handlers that have no transaction. */
export interface AtLeastOnceParts {
  readonly database: Database
  readonly settler: Settler
  readonly slots: Gate
  readonly limit: TenantLimit | undefined
  readonly setAside: (job: ActiveJob, count: number) => void
  readonly startAttempt: (event: StoredEvent, attempt: number) => RunningAttempt
  readonly mayBegin: (job: ActiveJob) => boolean
  readonly finishEvent: (job: ActiveJob, eventId: string, outcome: EventOutcome) => void
  readonly noteAttempt: (outcome: EventOutcome) => void
  readonly judge: (outcome: EventOutcome, event: StoredEvent) => void
  /** Reads the events of the job again where they were read too long ago: see `refreshEvents`. */
  readonly refresh: (job: ActiveJob) => Promise<void> | undefined
  readonly touch: () => Promise<void>
  /** Puts back what a batch has not begun; what runs goes on. */
  readonly giveBackRest: (job: ActiveJob) => void
}

/** Runs the events of jobs: those of a key one after the other, all others beside each other. */
export function createAtLeastOnce(parts: AtLeastOnceParts) {
  const { database, settler, slots, limit, mayBegin } = parts

  /** Runs events of a job. Resolves to whether one of a key failed, so that those behind it wait. */
  async function run(job: ActiveJob, attempt: number, eventIds: readonly string[]): Promise<boolean> {
    const handle = async (eventId: string): Promise<void> => handleEvent(job, eventId, attempt)
    if (job.claim.data.keyId !== undefined) return inOrder(job, eventIds, handle)
    await Promise.all(eventIds.map(handle))
    return false
  }

  /** One event after the other, up to the first that fails. Gives whether one did. */
  async function inOrder(
    job: ActiveJob,
    eventIds: readonly string[],
    handle: (eventId: string) => Promise<void>,
  ): Promise<boolean> {
    for (const eventId of eventIds) {
      // After a long pause of this process the key may be in other hands.
      if (performance.now() - job.confirmedAt > job.heartbeatSeconds * 1000)
        await settler.untilWritten(parts.touch)
      if (!mayBegin(job)) return false
      await handle(eventId)
      if (job.left.has(eventId)) return false
      if (job.unsettled.at(-1)?.delivered === false) return true
    }
    return false
  }

  async function handleEvent(job: ActiveJob, eventId: string, attempt: number): Promise<void> {
    const tenantId = limit && job.events.get(eventId)?.tenantId
    if (tenantId !== undefined && limit?.tryEnter(tenantId) === false) {
      parts.setAside(job, 1)
      await limit.enter(tenantId)
      parts.setAside(job, -1)
    }
    if (!slots.tryEnter()) await slots.enter()
    try {
      const refreshed = parts.refresh(job)
      if (refreshed !== undefined) await refreshed
      if (!mayBegin(job) || !job.left.has(eventId)) return
      if (isSliceOver(job)) return parts.giveBackRest(job)
      job.beganAt ??= performance.now()
      const event = job.events.get(eventId)
      if (event === undefined || isErased(event) || hasExpired(event)) {
        const settled = event === undefined ? eventNotFound : isErased(event) ? erasedBefore : expiredBefore
        const outcome = settled(eventId, attempt)
        parts.noteAttempt(outcome)
        parts.finishEvent(job, eventId, outcome)
        return
      }
      if (database.reach !== undefined) await database.reach('worker.handler-begins')
      const running = parts.startAttempt(event, attempt)
      job.running.set(eventId, running)
      const result = await running.result
      if (database.reach !== undefined) await database.reach('worker.handler-done')
      job.running.delete(eventId)
      // Aborted from outside: the event was handed back, or belongs to another worker by now.
      if (job.done || (result.outcome === 'failed' && forgive(job, result.thrown))) return
      const outcome = toOutcome(eventId, attempt, result)
      parts.judge(outcome, event)
      parts.noteAttempt(outcome)
      parts.finishEvent(job, eventId, outcome)
    } finally {
      slots.leave()
      if (tenantId !== undefined) limit?.leave(tenantId)
    }
  }

  return { run }
}
