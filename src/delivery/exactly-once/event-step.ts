import type { StoredEvent } from '../../events/envelope.ts'
import { DeliveryError } from '../../foundation/errors.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { forgive, isKey } from '../in-flight/active-job.ts'
import type { AbortReason, AttemptResult, RunningAttempt } from '../attempts/attempt.ts'
import { hasExpired, isErased } from '../attempts/event-reader.ts'
import { abortedTransaction, type EventTransaction } from './handler-transaction.ts'
import type { ExactlyOnceParts, HeldJob, HeldWork } from './transaction-batch.ts'
import { putOffMissing } from '../in-flight/missing-event.ts'
import {
  erasedBefore,
  eventNotFound,
  expiredBefore,
  toOutcome,
  type EventOutcome,
} from '../attempts/outcome.ts'
import type { Overrun } from '../attempts/overruns.ts'

/** How long a handler that was aborted may take to stop. */
const abortedHandlerMs = 500

/** What a lane knows of being aborted. */
export interface LaneAborts {
  aborted: AbortReason | undefined
  current: RunningAttempt | undefined
  /** Resolves when a handler that is still running is not waited for any longer. */
  readonly stopped: Promise<undefined>
  /** Set where a handler runs on: the lane keeps its slot until it has ended, and begins nothing more. */
  overrun: Overrun | undefined
}

/** What became of one event in a transaction. */
export type EventStep =
  | { readonly kind: 'done'; readonly outcome: EventOutcome }
  /** A shutdown, or a claim that expired, took it back, or it was not found. The transaction is as it was before. */
  | { readonly kind: 'cut short' }
  /** The transaction cannot go on, and this event is why; whether the handler may still be running in it. */
  | {
      readonly kind: 'failed alone'
      readonly thrown: unknown
      readonly final: boolean
      readonly durationMs?: number | undefined
    }
  /** The transaction cannot go on, and any of its events may be why. */
  | { readonly kind: 'broken'; readonly thrown: unknown; readonly lostRace: boolean }
  /** The handler does not stop, or another worker has the job. */
  | { readonly kind: 'given up' }

/** Lets the worker abort what runs in a transaction. */
export function watchAborts(job: HeldJob, name: string): LaneAborts {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const lane: LaneAborts = { aborted: undefined, current: undefined, stopped: promise, overrun: undefined }
  job.running.set(name, {
    abort(reason) {
      lane.aborted = reason
      lane.current?.abort(reason)
      if (reason === 'claim lost') resolve(undefined)
      else setTimeout(resolve, abortedHandlerMs, undefined).unref()
    },
  })
  return lane
}

/** Runs the handler of one event inside a transaction. */
export type RunEvent<J> = (
  work: HeldWork<J>,
  transaction: EventTransaction,
  lane: LaneAborts,
  eventId: string,
  takeFollowing: () => boolean,
) => Promise<EventStep>

export function createEventRunner<J extends HeldJob>(parts: ExactlyOnceParts<J>): RunEvent<J> {
  const { subscription, database } = parts

  /** Runs one handler, and keeps what it wrote or takes it back. */
  async function runEvent(
    { job, attempt }: HeldWork<J>,
    transaction: EventTransaction,
    lane: LaneAborts,
    eventId: string,
    takeFollowing: () => boolean,
  ): Promise<EventStep> {
    const next = (): 'handler' | 'settling' => (takeFollowing() ? 'handler' : 'settling')
    const failed = (thrown: unknown, durationMs?: number): EventStep => ({
      kind: 'done',
      outcome: toOutcome(eventId, attempt, {
        outcome: 'failed',
        thrown,
        ...(durationMs === undefined ? {} : { durationMs }),
      }),
    })
    const refreshed = parts.refresh(job)
    if (refreshed !== undefined) await refreshed
    if (job.lost || job.done) return { kind: 'given up' }
    let event: StoredEvent | undefined
    try {
      event = job.events.get(eventId)
    } catch (thrown) {
      // A payload that cannot be read is the failure of its event alone.
      takeFollowing()
      return failed(thrown)
    }
    if (event === undefined) {
      takeFollowing()
      return putOffMissing(job)
        ? { kind: 'cut short' }
        : { kind: 'done', outcome: eventNotFound(eventId, attempt) }
    }
    if (isErased(event)) {
      takeFollowing()
      return { kind: 'done', outcome: erasedBefore(eventId, attempt) }
    }
    if (hasExpired(event)) {
      takeFollowing()
      return { kind: 'done', outcome: expiredBefore(eventId, attempt) }
    }
    await database.faultPoint?.('exactly-once.handler-begins')
    const handle = await transaction.openHandle()
    const running = parts.startAttempt(event, attempt, handle.tx)
    lane.current = running
    if (lane.aborted !== undefined) running.abort(lane.aborted)
    const result = await Promise.race([running.result, lane.stopped])
    const overrun = result === undefined ? untilItEnds(running) : overrunOf(result)
    if (overrun !== undefined) {
      lane.overrun = overrun
      noteOverrun(job, event, attempt, overrun, result)
    }
    await database.faultPoint?.('exactly-once.handler-done')
    lane.current = undefined
    const closed = handle.close()
    if (result === undefined || job.lost || job.done) return { kind: 'given up' }
    if (!job.cutShort) parts.judge(toOutcome(eventId, attempt, result), event)
    if (result.outcome === 'failed' && overrun !== undefined)
      return { kind: 'failed alone', thrown: result.thrown, final: false, durationMs: result.durationMs }
    const unanswered = await answered(closed, lane)
    if (unanswered !== undefined) return unanswered
    const then = next()
    try {
      if (result.outcome === 'delivered') {
        if (handle.used || then === 'settling') await transaction.keep(then)
        await database.faultPoint?.('exactly-once.savepoint-released')
        return { kind: 'done', outcome: toOutcome(eventId, attempt, result) }
      }
      if (handle.lostRace) return { kind: 'broken', thrown: result.thrown, lostRace: true }
      await transaction.undo(then)
      await database.faultPoint?.('exactly-once.savepoint-rolled-back')
      return forgive(job, result.thrown) ? { kind: 'cut short' } : failed(result.thrown, result.durationMs)
    } catch (error) {
      const { code } = error as { code?: string }
      if (code === 'BUS_HANDLER_TRANSACTION_ABORTED' && !handle.lostRace) {
        const thrown = abortedTransaction(handle.firstError ?? reasonOf(error))
        return transaction.undo(then).then(
          () => (forgive(job, thrown) ? { kind: 'cut short' } : failed(thrown, result.durationMs)),
          (): EventStep => ({ kind: 'broken', thrown, lostRace: false }),
        )
      }
      // It did by hand what cannot be undone: trying again would do it again.
      if (code === 'BUS_HANDLER_TRANSACTION_ENDED')
        return { kind: 'failed alone', thrown: error, final: true }
      const thrown = result.outcome === 'failed' ? result.thrown : error
      return { kind: 'broken', thrown, lostRace: handle.lostRace }
    }
  }

  /** The job of a key stays in hand until the handler has ended, and counts by itself, unless it is another worker's. */
  function noteOverrun(
    job: J,
    event: StoredEvent,
    attempt: number,
    overrun: Overrun,
    result: AttemptResult | undefined,
  ): void {
    if (!isKey(job) || job.lost) {
      parts.overruns.watch(event, attempt, overrun)
      parts.outlives(job.lane, overrun)
      return
    }
    if (result?.outcome === 'failed' && !forgive(job, result.thrown))
      job.overrun = toOutcome(event.id, attempt, result)
    parts.overruns.watch(event, attempt, overrun, () => parts.keyWaits(job))
  }

  /** Statements that a handler did not await are waited for, as long as a handler may take. */
  async function answered(closed: Promise<void>, lane: LaneAborts): Promise<EventStep | undefined> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<EventStep>((resolve) => {
      const thrown = new DeliveryError(
        'BUS_HANDLER_TIMEOUT',
        `The handler of \`${subscription.name}\` left a statement running for ${subscription.timeoutSeconds} s`,
      )
      timer = setTimeout(resolve, subscription.timeoutSeconds * 1000, {
        kind: 'failed alone',
        thrown,
        final: false,
      }).unref()
    })
    const stopped = lane.stopped.then((): EventStep => ({ kind: 'given up' }))
    const step = await Promise.race([closed.then(() => undefined), late, stopped])
    clearTimeout(timer)
    return step
  }

  return runEvent
}

function overrunOf(result: AttemptResult): Overrun | undefined {
  return result.outcome === 'failed' ? result.overrun : undefined
}

/** The overrun of a handler that nobody waits for any longer. */
function untilItEnds({ result }: RunningAttempt): Overrun {
  const ended = (async () => {
    await overrunOf(await result)?.ended
  })()
  return { ended }
}
