import type { JobWithMetadata } from 'pg-boss'
import { reasonOf } from '../../foundation/error-reason.ts'
import { waitUntil } from '../../foundation/with-timeout.ts'
import { createExactlyOnce } from '../exactly-once/exactly-once.ts'
import { JobRun } from '../in-flight/job-run.ts'
import type { JobsInFlight } from '../in-flight/jobs-in-flight.ts'
import { isJobOfBus, toClaim } from '../jobs/claimed-job.ts'
import { cancelForeignJob } from '../jobs/foreign-job.ts'
import { isBatch, isRetry, type JobData } from '../jobs/job.ts'
import { recoverKeys } from '../ordering/recover-keys.ts'
import { createAtLeastOnce } from './at-least-once.ts'
import { createWorkerState } from './create-worker-state.ts'
import { startFetcher } from './fetcher.ts'
import { createJobRunner } from './run-job.ts'
import type { Worker, WorkerParts } from './worker-parts.ts'

const tickMs = 1000
const abortedHandlersMs = 1000

/** Starts fetching the jobs of a subscription and running its handler. */
export function startWorker(parts: WorkerParts): Worker {
  const { context, connections, coverage } = parts
  const { subscription, subscriptionId, database, logger } = context
  const { state: worker, jobs } = createWorkerState(parts)
  const { slots, signal, capacity, breaker, overruns, settlements, heartbeat } = worker
  const mode = connections === undefined ? createAtLeastOnce(worker) : createExactlyOnce(worker, connections)
  const runner = createJobRunner(worker, mode, parts.quarantine)
  const fetcher = startFetcher(worker, begin)
  const ticker = setInterval(tick, tickMs).unref()

  function begin(fetched: JobWithMetadata<JobData>, fetchedAt: number): void {
    if (!isJobOfBus(fetched)) return cancelForeignJob(context, fetched)
    const heartbeatSeconds = fetched.heartbeatSeconds ?? subscription.heartbeatSeconds
    const job = new JobRun(toClaim(fetched), worker, fetchedAt, heartbeatSeconds)
    job.isProbe = breaker.takeProbe()
    jobs.add(job)
    runner.run(job, fetched).catch((error: unknown) => {
      // This is not a failure of the handler: the job was not even started.
      logger.error(
        { subscription: subscription.name, reason: reasonOf(error) },
        'a job could not be processed',
      )
      void job.requeue()
    })
  }

  /** Once a second: writes outcomes of long batches early, and keeps claims current. */
  function tick(): void {
    const now = performance.now()
    if (overruns.count > 0 && !signal.isStopped) requeueWaiting(now)
    for (const job of jobs) if (now - job.startedAt > tickMs) job.settleEarly()
    heartbeat.tick()
  }

  /** What waits here behind handlers that still run after their attempt goes to other processes, or comes back once there is capacity. */
  function requeueWaiting(now: number): void {
    const isStuck = overruns.count >= subscription.concurrency
    for (const job of jobs) {
      const waitsLong = now - job.startedAt > subscription.timeoutSeconds * 1000
      if (job.isDone || job.remaining.size === 0 || job.isRequeueingUnstarted || !(isStuck || waitsLong))
        continue
      if (job.running.size === 0) void job.requeue()
      // In a transaction it is not known which of them were started; its transactions end by themselves.
      else if (connections === undefined && isBatch(job.claim.data)) job.requeueUnstarted()
    }
  }

  async function stop(graceMs: number, relayStopped: Promise<void>): Promise<void> {
    signal.stop()
    breaker.stop()
    const deadline = performance.now() + graceMs
    settlements.giveUpAt(deadline + abortedHandlersMs)
    await waitUntil(deadline, Promise.all([fetcher.stopped(), relayStopped]))
    await jobs.untilIdle(deadline)
    for (const job of jobs) job.interrupt('shutdown')
    if (jobs.size > 0) await database.faultPoint?.('stop.aborted')
    await jobs.untilIdle(performance.now() + abortedHandlersMs)
    await requeueAll(jobs)
    await settlements.idle()
    await database.faultPoint?.('stop.requeued')
    clearInterval(ticker)
  }

  return {
    subscriptionId,
    name: subscription.name,
    ordered: subscription.ordered === true,
    overruns,
    get inFlightCount() {
      return jobs.eventCount
    },
    isFree: (types, declarations) =>
      // Where retries wait, they would be fetched in its place.
      !signal.isStopped &&
      capacity.isFree() &&
      !slots.isExpected('retry') &&
      coverage.coversAll(types, declarations),
    wake: () => signal.wake(),
    applyState(state, readAt) {
      if (breaker.apply(state, readAt)) parts.onState(state)
    },
    adopt(fetched, fetchedAt) {
      for (const job of fetched) begin(job, fetchedAt)
      if (fetched.some(isRetry)) slots.expect('retry', true)
    },
    async recoverKeys() {
      if (!signal.isStopped && (await recoverKeys(context))) signal.wake()
    },
    stop,
  }
}

/** Puts back what is left of all jobs. */
async function requeueAll(jobs: JobsInFlight<JobRun>): Promise<void> {
  await Promise.allSettled(
    [...jobs].map(async ({ requeueing, marking }) => Promise.all([requeueing, marking])),
  )
  for (const job of jobs) if (!job.isDone && job.remaining.size > 0) void job.requeue()
}
