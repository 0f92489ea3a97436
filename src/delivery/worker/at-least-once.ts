import type { StoredEvent } from '../../events/envelope.ts'
import type { FaultPoint } from '../../foundation/fault-points.ts'
import type { Database } from '../../database/database.ts'
import { forgive, isSliceOver, type ActiveJob } from '../in-flight/active-job.ts'
import type { AttemptResult, RunningAttempt } from '../attempts/attempt.ts'
import { hasExpired, isErased, type LoadedEvents } from '../attempts/event-reader.ts'
import { createLine } from '../concurrency/ordered-starts.ts'
import { putOffMissing } from '../in-flight/missing-event.ts'
import {
  erasedBefore,
  eventNotFound,
  expiredBefore,
  toOutcome,
  type EventOutcome,
} from '../attempts/outcome.ts'
import type { Overrun, Overruns } from '../attempts/overruns.ts'
import type { Settler } from '../settlement/settlement-queue.ts'
import type { Lane, Slots } from '../concurrency/handler-slots.ts'
import type { TenantLimit } from '../in-flight/tenant-limit.ts'

/** What a worker lends to the handlers that have no transaction. */
export interface AtLeastOnceParts {
  readonly database: Database
  readonly settler: Settler
  readonly slots: Slots
  readonly limit: TenantLimit | undefined
  readonly setAside: (job: ActiveJob, count: number) => void
  readonly startAttempt: (event: StoredEvent, attempt: number) => RunningAttempt
  readonly mayBegin: (job: ActiveJob) => boolean
  readonly finishEvent: (job: ActiveJob, eventId: string, outcome: EventOutcome) => void
  /** @param events - what is known of the event, for the log */
  readonly noteAttempt: (outcome: EventOutcome, events: LoadedEvents) => void
  readonly judge: (outcome: EventOutcome, event: StoredEvent) => void
  /** Reads the events of the job again where they were read too long ago: see `refreshEvents`. */
  readonly refresh: (job: ActiveJob) => Promise<void> | undefined
  readonly touch: () => Promise<void>
  readonly overruns: Overruns
  /** Counts a handler that runs on after its event was settled, until it has ended. */
  readonly outlives: (lane: Lane, overrun: Overrun) => void
  /** The key of a job waits for a handler that ignores its signal. */
  readonly keyWaits: (job: ActiveJob) => void
  /** Puts back what a batch has not begun; what runs goes on. */
  readonly giveBackRest: (job: ActiveJob) => void
}

type Begun = Promise<Overrun | undefined> | undefined

/** Runs the events of jobs: those of a key one after the other, all others beside each other. */
export function createAtLeastOnce(parts: AtLeastOnceParts) {
  const { database, settler, limit, mayBegin } = parts
  const { gates } = parts.slots
  const lines = { first: createLine(gates.first), later: createLine(gates.later) }

  /** Runs events of a job. Resolves to whether one of a key failed, so that those behind it wait. */
  async function run(job: ActiveJob, attempt: number, eventIds: Iterable<string>): Promise<boolean> {
    if (job.claim.data.keyId !== undefined) return inOrder(job, attempt, eventIds)
    if (limit === undefined) await lines[job.lane].run(eventIds, (eventId) => begin(job, eventId, attempt))
    else await Promise.all([...eventIds].map(async (eventId) => handleAlone(job, eventId, attempt)))
    return false
  }

  /** One event after the other, up to the first that fails. Gives whether one did. */
  async function inOrder(job: ActiveJob, attempt: number, eventIds: Iterable<string>): Promise<boolean> {
    for (const eventId of eventIds) {
      // After a long pause of this process the key may be in other hands.
      if (performance.now() - job.confirmedAt > job.heartbeatSeconds * 1000)
        await settler.untilWritten(parts.touch)
      if (!mayBegin(job)) return false
      await handleAlone(job, eventId, attempt)
      if (job.left.has(eventId)) return false
      if (job.unsettled.at(-1)?.delivered === false) return true
    }
    return false
  }

  /** Takes the place of the event's tenant, where there is a limit, then a slot. */
  async function handleAlone(job: ActiveJob, eventId: string, attempt: number): Promise<void> {
    const tenantId = limit && job.events.tenantOf(eventId)
    if (tenantId !== undefined && limit?.tryEnter(tenantId) === false) {
      parts.setAside(job, 1)
      await limit.enter(tenantId)
      parts.setAside(job, -1)
    }
    const gate = gates[job.lane]
    if (!gate.tryEnter()) await gate.enter()
    const leave = (): void => {
      gate.leave()
      if (tenantId !== undefined) limit?.leave(tenantId)
    }
    let overrun: Overrun | undefined
    try {
      overrun = await begin(job, eventId, attempt)
    } finally {
      if (overrun === undefined) leave()
      else void overrun.ended.then(leave)
    }
  }

  /**
   * Begins an event for which there is a slot. Undefined when it is over already, or is not to be begun. Resolves to the overrun
   * of a handler that keeps its slot although its event is settled.
   */
  function begin(job: ActiveJob, eventId: string, attempt: number): Begun {
    const refreshed = parts.refresh(job)
    if (refreshed === undefined) return beginFresh(job, eventId, attempt)
    return refreshed.then(async () => beginFresh(job, eventId, attempt))
  }

  function beginFresh(job: ActiveJob, eventId: string, attempt: number): Begun {
    if (!mayBegin(job) || !job.left.has(eventId)) return undefined
    if (isSliceOver(job)) {
      parts.giveBackRest(job)
      return undefined
    }
    job.beganAt ??= performance.now()
    let event: StoredEvent | undefined
    try {
      event = job.events.get(eventId)
    } catch (thrown) {
      // A payload that cannot be read is the failure of its event alone.
      const outcome = toOutcome(eventId, attempt, { outcome: 'failed', thrown })
      parts.noteAttempt(outcome, job.events)
      parts.finishEvent(job, eventId, outcome)
      return undefined
    }
    if (event === undefined && putOffMissing(job)) return undefined
    if (event === undefined || isErased(event) || hasExpired(event)) {
      const settled = event === undefined ? eventNotFound : isErased(event) ? erasedBefore : expiredBefore
      const outcome = settled(eventId, attempt)
      parts.noteAttempt(outcome, job.events)
      parts.finishEvent(job, eventId, outcome)
      return undefined
    }
    return reached('worker.handler-begins', () => start(job, event, attempt))
  }

  function start(job: ActiveJob, event: StoredEvent, attempt: number): Begun {
    const running = parts.startAttempt(event, attempt)
    const { result } = running
    if (result instanceof Promise) return untilEnd(job, event, attempt, running)
    return reached('worker.handler-done', () => end(job, event, attempt, result))
  }

  /**
   * Goes on behind a fault point, at once unless somebody there makes it wait: most handlers of a fast subscription are over in
   * the turn of the event loop in which they begin, with a hook as without.
   */
  function reached(point: FaultPoint, goOn: () => Begun): Begun {
    const pause = database.faultPoint?.(point)
    return pause instanceof Promise ? pause.then(goOn) : goOn()
  }

  async function untilEnd(
    job: ActiveJob,
    event: StoredEvent,
    attempt: number,
    running: RunningAttempt,
  ): Promise<Overrun | undefined> {
    job.running.set(event.id, running)
    const result = await running.result
    const pause = database.faultPoint?.('worker.handler-done')
    if (pause instanceof Promise) await pause
    const overrun = result.outcome === 'failed' ? result.overrun : undefined
    if (overrun === undefined || job.claim.data.keyId === undefined) {
      job.running.delete(event.id)
      end(job, event, attempt, result)
      if (overrun === undefined) return undefined
      parts.overruns.watch(event, attempt, overrun)
      parts.outlives(job.lane, overrun)
      return overrun
    }
    // Nothing of the key begins beside it: the job stays in hand, and its claim alive, until the handler has ended.
    job.overrun = judged(job, event, attempt, result)
    parts.overruns.watch(event, attempt, overrun, () => parts.keyWaits(job))
    await overrun.ended
    await job.marking
    job.running.delete(event.id)
    const outcome = job.overrun
    if (job.done || outcome === undefined) return undefined
    job.overrun = undefined
    parts.finishEvent(job, event.id, outcome)
    return undefined
  }

  function end(job: ActiveJob, event: StoredEvent, attempt: number, result: AttemptResult): undefined {
    const outcome = judged(job, event, attempt, result)
    if (outcome !== undefined) parts.finishEvent(job, event.id, outcome)
  }

  function judged(
    job: ActiveJob,
    event: StoredEvent,
    attempt: number,
    result: AttemptResult,
  ): EventOutcome | undefined {
    // Aborted from outside: the event was handed back, or belongs to another worker by now.
    if (job.done || (result.outcome === 'failed' && forgive(job, result.thrown))) return undefined
    const outcome = toOutcome(event.id, attempt, result)
    parts.judge(outcome, event)
    parts.noteAttempt(outcome, job.events)
    return outcome
  }

  return { run }
}
