import type { StoredEvent } from '../../events/envelope.ts'
import type { FaultPoint } from '../../foundation/fault-points.ts'
import type { AttemptResult, RunningAttempt, Overrun } from '../attempts/attempt.ts'
import { createOrderedStarts } from '../concurrency/handler-slots.ts'
import type { JobRun } from '../in-flight/job-run.ts'
import { watchInKey, watchInSlot } from '../in-flight/overrunning-handler.ts'
import type { WorkerParts } from '../in-flight/worker-parts.ts'
import type { HandlerMode } from '../in-flight/handler-mode.ts'

type Started = Promise<Overrun | undefined> | undefined

/** Runs the events of jobs without a transaction: those of a key one after the other, all others concurrently. */
export function createAtLeastOnce(worker: WorkerParts): HandlerMode {
  const { slots, settlements, heartbeat, context } = worker
  const { database } = context
  const limit = worker.tenants?.limit
  const starts = {
    first: createOrderedStarts(slots.of.first),
    retry: createOrderedStarts(slots.of.retry),
  }

  async function run(job: JobRun, eventIds: Iterable<string>): Promise<boolean> {
    if (job.isOfKey) return runInOrder(job, eventIds)
    if (limit === undefined) await starts[job.kind].run(eventIds, (eventId) => start(job, eventId))
    else await Promise.all([...eventIds].map(async (eventId) => runInSlot(job, eventId)))
    return false
  }

  /** One event after the other, up to the first that fails. Resolves to whether one did. */
  async function runInOrder(job: JobRun, eventIds: Iterable<string>): Promise<boolean> {
    for (const eventId of eventIds) {
      // After a long pause of this process another worker may have the key.
      if (performance.now() - job.confirmedAt > job.heartbeatSeconds * 1000)
        await settlements.retryUntilDone(heartbeat.touch)
      if (!job.mayStart) return false
      await runInSlot(job, eventId)
      if (job.remaining.has(eventId)) return false
      if (job.hasFailed) return true
    }
    return false
  }

  /** Takes a slot of the event's tenant, where there is a limit, then a handler slot. */
  async function runInSlot(job: JobRun, eventId: string): Promise<void> {
    const tenantId = limit && job.events.tenantOf(eventId)
    if (tenantId !== undefined && limit?.tryAcquire(tenantId) === false) {
      job.markWaitingForTenant(1)
      await limit.acquire(tenantId)
      job.markWaitingForTenant(-1)
    }
    const slot = slots.of[job.kind]
    if (!slot.tryAcquire()) await slot.acquire()
    const release = (): void => {
      slot.release()
      if (tenantId !== undefined) limit?.release(tenantId)
    }
    let overrun: Overrun | undefined
    try {
      overrun = await start(job, eventId)
    } finally {
      if (overrun === undefined) release()
      else void overrun.ended.then(release)
    }
  }

  /**
   * Starts an event for which there is a slot. Returns undefined when it is over already, or may not be started. Resolves to the
   * overrun of a handler that keeps its slot although its event is over.
   */
  function start(job: JobRun, eventId: string): Started {
    const refreshed = job.events.refresh(job.remaining)
    if (refreshed === undefined) return startFresh(job, eventId)
    return refreshed.then(async () => startFresh(job, eventId))
  }

  function startFresh(job: JobRun, eventId: string): Started {
    if (!job.mayStart || !job.remaining.has(eventId)) return undefined
    if (job.isSliceOver) {
      job.requeueUnstarted()
      return undefined
    }
    const opened = job.events.open(eventId)
    if (opened === 'postponed') return undefined
    if ('event' in opened) return after('worker.handler-begins', () => callHandler(job, opened.event))
    job.record(opened.outcome)
    job.finish(eventId, opened.outcome)
    return undefined
  }

  function callHandler(job: JobRun, event: StoredEvent): Started {
    const running = job.startAttempt(event)
    const { result } = running
    if (result instanceof Promise) return untilOver(job, event, running)
    return after('worker.handler-done', () => {
      end(job, event, result)
      return undefined
    })
  }

  /**
   * Continues after a fault point: at once, unless its hook waits. Most handlers of a fast subscription are over in the turn of the
   * event loop in which they start, with a hook as without.
   */
  function after(point: FaultPoint, proceed: () => Started): Started {
    const pause = database.faultPoint?.(point)
    return pause instanceof Promise ? pause.then(proceed) : proceed()
  }

  async function untilOver(
    job: JobRun,
    event: StoredEvent,
    running: RunningAttempt,
  ): Promise<Overrun | undefined> {
    job.running.set(event.id, running)
    const result = await running.result
    const pause = database.faultPoint?.('worker.handler-done')
    if (pause instanceof Promise) await pause
    const overrun = result.outcome === 'failed' ? result.overrun : undefined
    if (overrun !== undefined && job.isOfKey) {
      await untilKeyIsFree(job, event, result, overrun)
      return undefined
    }
    job.running.delete(event.id)
    end(job, event, result)
    if (overrun === undefined) return undefined
    watchInSlot(worker, job, event, overrun)
    return overrun
  }

  /** No event of a key starts beside a handler of it: the job stays in flight, and its claim current, until the handler has ended. */
  async function untilKeyIsFree(
    job: JobRun,
    event: StoredEvent,
    result: AttemptResult,
    overrun: Overrun,
  ): Promise<void> {
    job.overrun = toRecordedOutcome(job, event, result)
    watchInKey(worker, job, event, overrun)
    await overrun.ended
    await job.marking
    job.running.delete(event.id)
    const outcome = job.overrun
    if (job.isDone || outcome === undefined) return
    job.overrun = undefined
    job.finish(event.id, outcome)
  }

  function end(job: JobRun, event: StoredEvent, result: AttemptResult): void {
    const outcome = toRecordedOutcome(job, event, result)
    if (outcome !== undefined) job.finish(event.id, outcome)
  }

  /** Undefined where the attempt does not count: the event has gone back, or belongs to another worker by now. */
  function toRecordedOutcome(job: JobRun, event: StoredEvent, result: AttemptResult) {
    if (job.isDone || (result.outcome === 'failed' && job.discountFailure(result.thrown))) return undefined
    const outcome = job.judge(event, result)
    job.record(outcome)
    return outcome
  }

  return { run, prepare: async () => {} }
}
