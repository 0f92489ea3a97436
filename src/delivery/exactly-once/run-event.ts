import type { StoredEvent } from '../../events/envelope.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { DeliveryError } from '../../foundation/errors.ts'
import { withTimeout } from '../../foundation/with-timeout.ts'
import type { AttemptResult, RunningAttempt, Overrun } from '../attempts/attempt.ts'
import { toOutcome, type EventOutcome } from '../attempts/outcome.ts'
import type { JobRun } from '../in-flight/job-run.ts'
import { watchInKey, watchInSlot } from '../in-flight/overrunning-handler.ts'
import type { WorkerParts } from '../in-flight/worker-parts.ts'
import { abortedTransaction, type TransactionHandle } from './handler-transaction.ts'
import type { TransactionRun } from './transaction-run.ts'

/** What happened to one event in a transaction. */
export type EventStep =
  | { readonly kind: 'done'; readonly outcome: EventOutcome }
  /** It is requeued, because of a shutdown or an expired claim, or because it was not found. The transaction is as it was before. */
  | { readonly kind: 'interrupted' }
  | BrokenStep

/** The transaction cannot continue. */
export type BrokenStep =
  /** Because of this event. Its handler may still be running in the transaction. */
  | {
      readonly kind: 'failed'
      readonly thrown: unknown
      readonly final: boolean
      readonly durationMs?: number | undefined
    }
  /** Any of its events may be the cause. */
  | { readonly kind: 'transaction-broken'; readonly thrown: unknown; readonly lostRace: boolean }
  /** The handler does not stop, or another worker has the job. */
  | { readonly kind: 'abandoned' }

/** Runs the handler of an event inside a transaction, and keeps what it wrote or takes it back. */
export async function runEvent(
  worker: WorkerParts,
  run: TransactionRun,
  eventId: string,
): Promise<EventStep> {
  const { database } = worker.context
  const { job } = run.work
  const refreshed = job.events.refresh(job.remaining)
  if (refreshed !== undefined) await refreshed
  if (job.isDone) return { kind: 'abandoned' }
  const opened = job.events.open(eventId)
  if (opened === 'postponed' || 'outcome' in opened) {
    run.takeNext()
    return opened === 'postponed' ? { kind: 'interrupted' } : { kind: 'done', outcome: opened.outcome }
  }
  const { event } = opened
  await database.faultPoint?.('exactly-once.handler-begins')
  const handle = await run.transaction.openHandle()
  const running = job.startAttempt(event, handle.tx)
  run.current = running
  const result = await Promise.race([running.result, run.givenUp])
  const overrun = result === undefined ? untilEnded(running) : overrunOf(result)
  if (overrun !== undefined) {
    run.overrun = overrun
    watchOverrun(worker, job, event, overrun, result)
  }
  await database.faultPoint?.('exactly-once.handler-done')
  run.current = undefined
  const closed = handle.close()
  if (result === undefined || job.isDone) return { kind: 'abandoned' }
  if (!job.isInterrupted) job.judge(event, result)
  if (result.outcome === 'failed' && overrun !== undefined)
    return { kind: 'failed', thrown: result.thrown, final: false, durationMs: result.durationMs }
  return (await untilAnswered(worker, run, closed)) ?? end(worker, run, event, result, handle)
}

/** The handler is done, and its statements are answered: keeps what it wrote, or takes it back. */
async function end(
  worker: WorkerParts,
  run: TransactionRun,
  event: StoredEvent,
  result: AttemptResult,
  handle: TransactionHandle,
): Promise<EventStep> {
  const { job } = run.work
  const { transaction } = run
  const { faultPoint } = worker.context.database
  const outcomeOf = (ended: AttemptResult): EventStep => ({
    kind: 'done',
    outcome: toOutcome(event, job.attempt, ended),
  })
  const failed = (thrown: unknown): EventStep => {
    if (job.discountFailure(thrown)) return { kind: 'interrupted' }
    const { durationMs, trace } = result
    return outcomeOf({
      outcome: 'failed',
      thrown,
      trace,
      ...(durationMs === undefined ? {} : { durationMs }),
    })
  }
  const then = run.takeNext() ? 'handler' : 'settling'
  try {
    if (result.outcome === 'delivered') {
      if (handle.used || then === 'settling') await transaction.releaseSavepoint(then)
      await faultPoint?.('exactly-once.savepoint-released')
      return outcomeOf(result)
    }
    if (handle.lostRace) return { kind: 'transaction-broken', thrown: result.thrown, lostRace: true }
    await transaction.rollbackToSavepoint(then)
    await faultPoint?.('exactly-once.savepoint-rolled-back')
    return failed(result.thrown)
  } catch (error) {
    const { code } = error as { code?: string }
    if (code === 'BUS_HANDLER_TRANSACTION_ABORTED' && !handle.lostRace) {
      const thrown = abortedTransaction(handle.firstError ?? reasonOf(error))
      return transaction.rollbackToSavepoint(then).then(
        () => failed(thrown),
        (): EventStep => ({ kind: 'transaction-broken', thrown, lostRace: false }),
      )
    }
    // The handler did by hand what cannot be undone: trying again would do it again.
    if (code === 'BUS_HANDLER_TRANSACTION_ENDED') return { kind: 'failed', thrown: error, final: true }
    const thrown = result.outcome === 'failed' ? result.thrown : error
    return { kind: 'transaction-broken', thrown, lostRace: handle.lostRace }
  }
}

/** The job of a key stays in flight until the handler has ended, and takes its slot by itself, unless it is another worker's. */
function watchOverrun(
  worker: WorkerParts,
  job: JobRun,
  event: StoredEvent,
  overrun: Overrun,
  result: AttemptResult | undefined,
): void {
  if (!job.isOfKey || job.isClaimLost) {
    watchInSlot(worker, job, event, overrun)
    return
  }
  if (result?.outcome === 'failed' && !job.discountFailure(result.thrown))
    job.overrun = toOutcome(event, job.attempt, result)
  watchInKey(worker, job, event, overrun)
}

/** Waits for statements that a handler did not await, as long as a handler may take. Undefined where they were answered. */
async function untilAnswered(
  { context }: WorkerParts,
  run: TransactionRun,
  closed: Promise<void>,
): Promise<EventStep | undefined> {
  const { name, timeoutSeconds } = context.subscription
  const late = (): EventStep => {
    const thrown = new DeliveryError(
      'BUS_HANDLER_TIMEOUT',
      `The handler of \`${name}\` left a statement running for ${timeoutSeconds} s`,
    )
    return { kind: 'failed', thrown, final: false }
  }
  const abandoned = run.givenUp.then((): EventStep => ({ kind: 'abandoned' }))
  const answered = closed.then(() => undefined)
  return withTimeout(Promise.race([answered, abandoned]), timeoutSeconds * 1000, late)
}

function overrunOf(result: AttemptResult): Overrun | undefined {
  return result.outcome === 'failed' ? result.overrun : undefined
}

/** The overrun of a handler that is not waited for any longer. */
function untilEnded({ result }: RunningAttempt): Overrun {
  const ended = (async () => {
    await overrunOf(await result)?.ended
  })()
  return { ended }
}
