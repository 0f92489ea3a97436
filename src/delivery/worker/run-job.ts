import type { JobWithMetadata } from 'pg-boss'
import type { HandlerMode } from '../in-flight/handler-mode.ts'
import type { JobRun } from '../in-flight/job-run.ts'
import { markIsolated, type Quarantine } from '../in-flight/quarantine.ts'
import type { WorkerState } from '../in-flight/worker-state.ts'
import { isRedriven, wasLost } from '../jobs/claimed-job.ts'
import type { JobData } from '../jobs/job.ts'
import { isSuspect } from '../settlement/lost-job.ts'
import { readReceipts } from '../settlement/receipts.ts'
import { admitEvents } from './admit-events.ts'
import { declineUncovered, findRunnable } from './uncovered-events.ts'

/** Runs claimed jobs of one subscription, each from its claim to its settlement. */
export interface JobRunner {
  readonly run: (job: JobRun, fetched: JobWithMetadata<JobData>) => Promise<void>
}

export function createJobRunner(worker: WorkerState, mode: HandlerMode, quarantine: Quarantine): JobRunner {
  const { context, settlements, outcomes, signal, metrics, breaker, tenants } = worker
  const isExactlyOnce = context.subscription.mode === 'exactly-once'

  async function run(job: JobRun, fetched: JobWithMetadata<JobData>): Promise<void> {
    const { claim } = job
    if (claim.retryCount > 0) await mode.prepare(claim)
    if (wasLost(fetched) || (claim.data.eventIds.length > 1 && claim.retryCount > 0))
      return quarantine.recover(async () => recover(job))
    if (!isSuspect(claim.data)) return deliver(job, isRedriven(fetched))
    return quarantine.runIsolated(async () => {
      if (!job.mayStart) return job.isDone ? undefined : job.requeue()
      const isOurs = await settlements.untilWritten(async () => markIsolated(context, claim))
      if (isOurs) await deliver(job, isRedriven(fetched))
      else job.onClaimLost()
    })
  }

  /** The worker before was lost: its events go on in jobs of their own. */
  async function recover(job: JobRun): Promise<void> {
    await settlements.untilWritten(async () => outcomes.recover(job.claim))
    job.release()
    signal.wake()
  }

  /** Runs the events of a job that may be run, and settles the job. */
  async function deliver(job: JobRun, isFromDeadLetters: boolean): Promise<void> {
    await readEvents(job, isFromDeadLetters)
    await context.database.faultPoint?.('worker.loaded')
    const runnable = await findRunnable(worker, job)
    let failed = job.isProbe && (await probe(job, runnable))
    if (!failed && runnable.size > 0 && job.mayStart) failed = await mode.run(job, admit(job, runnable))
    if (!failed && !job.isDone && job.isUncovered) failed = await declineUncovered(worker, job)
    await job.requeueing
    if (job.isDone) return
    // Until it is written: a suspect that another one follows too early would be blamed for it.
    await (job.remaining.size > 0 && !failed ? job.requeue() : job.settle())
  }

  /** Reads the events of a job, and which of them are delivered already. */
  async function readEvents(job: JobRun, isFromDeadLetters: boolean): Promise<void> {
    const mayBeDelivered = isExactlyOnce || job.attempt > 1 || isFromDeadLetters
    const [, delivered] = await Promise.all([
      job.events.refresh(job.remaining),
      mayBeDelivered
        ? settlements.untilWritten(async () =>
            readReceipts(context.database, context.subscriptionId, job.claim.data.eventIds),
          )
        : new Set<string>(),
    ])
    for (const eventId of delivered) job.finish(eventId)
  }

  function admit(job: JobRun, runnable: ReadonlySet<string>): Iterable<string> {
    if (tenants === undefined) return runnable
    const admitted = admitEvents(tenants.limit, job).filter((id) => runnable.has(id))
    job.markWaitingForTenant(job.remaining.size - admitted.length)
    return admitted
  }

  /** Tries the first event of a job while the circuit breaker is open. */
  async function probe(job: JobRun, runnable: ReadonlySet<string>): Promise<boolean> {
    const before = metrics.deliveredCount
    const failed = runnable.size > 0 && (await mode.run(job, [...runnable].slice(0, 1)))
    job.isProbe = false
    const isDelivered = metrics.deliveredCount > before
    const { uncountedFailure } = job
    await breaker.endProbe(
      isDelivered || (uncountedFailure === undefined ? undefined : false),
      uncountedFailure?.thrown,
    )
    return failed
  }

  return { run }
}
