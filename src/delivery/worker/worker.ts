import type { JobWithMetadata } from 'pg-boss'
import type { Database } from '../../database/database.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { LoopProgress } from '../../foundation/loop-progress.ts'
import { waitUntil } from '../../foundation/with-timeout.ts'
import { attemptStarter, createOverruns } from '../attempts/attempt.ts'
import type { EventReader } from '../attempts/event-reader.ts'
import { createHandlerMetrics } from '../attempts/outcome.ts'
import { createHandlerSlots } from '../concurrency/handler-slots.ts'
import { createExactlyOnce } from '../exactly-once/exactly-once.ts'
import { createPauseAndBreaker } from '../flow-control/pause-and-breaker.ts'
import { readStates, type SubscriptionState } from '../flow-control/subscription-state.ts'
import { createHeartbeat } from '../in-flight/heartbeat.ts'
import { JobRun } from '../in-flight/job-run.ts'
import { createJobsInFlight, createFetchSignal, type JobsInFlight } from '../in-flight/jobs-in-flight.ts'
import { createTenantAdmission, createTenantLimit } from '../in-flight/tenant-limit.ts'
import type { WorkerParts } from '../in-flight/worker-parts.ts'
import { cancelForeignJob } from '../jobs/foreign-job.ts'
import { isJobOfBus, toClaim } from '../jobs/job-claim.ts'
import { isBatch, isRetry, type JobData } from '../jobs/job.ts'
import { recoverKeys } from '../ordering/recover-keys.ts'
import type { LocalWorkers } from '../routing/direct-delivery.ts'
import { createOutcomeWriter } from '../settlement/outcome-writer.ts'
import { createSettlementQueue } from '../settlement/settlement-queue.ts'
import type { Settlement } from '../settlement/settlement.ts'
import { tellSettled } from '../settlement/tell-settled.ts'
import { createAtLeastOnce } from './at-least-once.ts'
import { startFetcher, slowHandlerMs } from './fetcher.ts'
import { createJobRunner } from './run-job.ts'
import type { Worker, WorkerDependencies } from './worker-dependencies.ts'

const tickMs = 1000
const abortedHandlersMs = 1000

/** Starts fetching the jobs of a subscription and running its handler. */
export function startWorker(parts: WorkerDependencies): Worker {
  const { context, connections, coverage } = parts
  const { subscription, subscriptionId, database, logger } = context
  const { state: worker, jobs } = createWorkerParts(parts)
  const { slots, signal, breaker, overruns, settlements, heartbeat } = worker
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
    connections?.permits.leave()
    await database.faultPoint?.('stop.requeued')
    clearInterval(ticker)
  }

  return {
    subscriptionId,
    name: subscription.name,
    ordered: subscription.ordered === true,
    overruns,
    progress: fetcher.progress,
    get inFlightCount() {
      return jobs.eventCount
    },
    isFree: (types, declarations) =>
      // Where retries wait, they would be fetched in its place.
      !signal.isStopped &&
      jobs.hasCapacity() &&
      !slots.isExpected('retry') &&
      coverage.coversAll(types, declarations),
    wake: () => signal.wake(),
    applyState(state, readAt) {
      if (!breaker.apply(state, readAt)) return
      const before = subscription.concurrency
      parts.onState(state)
      if (subscription.concurrency === before) return
      slots.resized()
      signal.wake()
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

/** Keys of an ordered subscription that are worked on at a time, while handlers are fast. */
const maxKeysInFlight = 64

/** Makes the parts of a worker, each from those before it. */
function createWorkerParts(parts: WorkerDependencies): {
  readonly state: WorkerParts
  readonly jobs: JobsInFlight<JobRun>
} {
  const { context, catalogue, events, publishing, coverage, requestPoll } = parts
  const { subscription, logger } = context
  const signal = createFetchSignal(context)
  const slots = createHandlerSlots(() => subscription.concurrency, signal.capacityFreed)
  const metrics = createHandlerMetrics()
  const limit = createTenantLimit(subscription.tenantConcurrency, () => metrics.averageMs)
  const tenants = limit && createTenantAdmission(context, limit, signal)
  const overruns = createOverruns(subscription, logger, (tenantId, change) =>
    tenants?.onOverrun(tenantId, change),
  )
  const breaker = createPauseAndBreaker(context, parts.state, signal.wake)
  const jobs = createJobsInFlight<JobRun>(slotCount, slots, breaker, signal)
  const outcomes = createOutcomeWriter(context)
  const settlements = createSettlementQueue(write, logger)

  /** With fast handlers, keys find their next job here; with slow ones, other processes get their share. */
  function slotCount(): number {
    const { concurrency, ordered } = subscription
    if (overruns.count >= concurrency) return 0
    const isFast = metrics.handledCount > 0 && metrics.averageMs < slowHandlerMs
    return ordered === true && isFast ? Math.max(concurrency, maxKeysInFlight) : concurrency
  }

  async function write(batch: readonly Settlement[]): Promise<readonly Settlement[]> {
    const { readyCount, postponed } = await tellSettled(context, batch, async () => outcomes.write(batch))
    if (readyCount > 0) await signal.jobsReady()
    if (batch.some((settlement) => settlement.outcomes.some(({ delivered }) => !delivered))) requestPoll()
    return postponed
  }

  const state: WorkerParts = {
    ...{ context, events, coverage, slots, tenants, jobs, breaker, signal, outcomes, settlements },
    ...{ metrics, overruns, requestPoll },
    startAttempt: attemptStarter(subscription, catalogue, logger, publishing, context.telemetry.spans),
    heartbeat: createHeartbeat(context, jobs),
  }
  return { state, jobs }
}

/** The workers of this process, by the id of their subscription. */
export class Workers implements LocalWorkers {
  readonly #workers = new Map<number, Worker>()
  readonly #database: Database
  readonly #events: EventReader

  constructor(database: Database, events: EventReader) {
    this.#database = database
    this.#events = events
  }

  add(worker: Worker): void {
    this.#workers.set(worker.subscriptionId, worker)
  }

  get subscriptionIds(): Iterable<number> {
    return this.#workers.keys()
  }

  get inFlightCount(): number {
    return this.#sum(({ inFlightCount }) => inFlightCount)
  }

  get progress(): readonly LoopProgress[] {
    return [...this.#workers.values()].map(({ progress }) => progress)
  }

  get overrunCount(): number {
    return this.#sum(({ overruns }) => overruns.count)
  }

  isFree: LocalWorkers['isFree'] = (id, types, declarations) =>
    this.#workers.get(id)?.isFree(types, declarations) ?? false

  wake: LocalWorkers['wake'] = (id) => this.#workers.get(id)?.wake()

  wakeAll(): void {
    for (const worker of this.#workers.values()) worker.wake()
  }

  adopt: LocalWorkers['adopt'] = (id, jobs, fetchedAt) => this.#workers.get(id)?.adopt(jobs, fetchedAt)

  prefetch: LocalWorkers['prefetch'] = (ids) => this.#events.prefetch(ids)

  /** Applies the current states of subscriptions. If the database is down, maintenance applies them later. */
  async followStates(ids: Iterable<number> = this.subscriptionIds): Promise<void> {
    const ours = [...ids].filter((id) => this.#workers.has(id))
    const readAt = performance.now()
    const states = await readStates(this.#database, ours).catch(() => new Map<number, SubscriptionState>())
    for (const [id, state] of states) this.#workers.get(id)?.applyState(state, readAt)
  }

  /** Stops the worker of a subscription, as `stop` does for all. Until then jobs may still be passed to it. */
  async stopOne(id: number, graceMs: number, relayStopped: Promise<void>): Promise<void> {
    await this.#workers.get(id)?.stop(graceMs, relayStopped)
    this.#workers.delete(id)
  }

  async stop(graceMs: number, relayStopped: Promise<void>): Promise<void> {
    await Promise.all([...this.#workers.values()].map(async (worker) => worker.stop(graceMs, relayStopped)))
  }

  #sum(count: (worker: Worker) => number): number {
    return [...this.#workers.values()].reduce((sum, worker) => sum + count(worker), 0)
  }
}
