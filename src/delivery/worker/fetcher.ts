import type { JobWithMetadata } from 'pg-boss'
import { reasonOf } from '../../foundation/error-reason.ts'
import { createLoopProgress, type LoopProgress } from '../../foundation/loop-progress.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import type { FetchPlan } from '../concurrency/handler-slots.ts'
import type { WorkerParts } from '../in-flight/worker-parts.ts'
import { preparedOn } from '../jobs/boss.ts'
import { isBatch, isRetry, retryPriority, type JobData } from '../jobs/job.ts'
import { byPosition } from '../jobs/job-claim.ts'

/** With fast handlers, batches fetched at a time: what a full claim makes of 1,000 events. */
const maxBatchesPerFetch = 10
const maxSinglesPerFetch = 50

/** Handlers slower than this on average get one batch at a time, so that other processes get theirs. */
export const slowHandlerMs = 5

/** How often a fetcher fetches without being woken. Maintenance finds every ready job sooner, with one query for many queues. */
const idlePollMs = 3_600_000

/** The priorities that a fetch asks for. */
const priorities = {
  any: {},
  first: { maxPriority: retryPriority - 1 },
  retry: { minPriority: retryPriority },
} as const

/** Fetches the jobs of a queue while there is capacity for them. */
export interface Fetcher {
  readonly progress: LoopProgress
  /** Resolves when no fetch is open and none will be. */
  stopped: () => Promise<void>
}

/** @param begin - takes a job that was fetched no earlier than `fetchedAt`, in the time of `performance.now()` */
export function startFetcher(
  { context, coverage, slots, jobs: inFlight, metrics, signal }: WorkerParts,
  begin: (job: JobWithMetadata<JobData>, fetchedAt: number) => void,
): Fetcher {
  const { boss, database, queue, logger } = context
  const prepared = preparedOn(database)
  const progress = createLoopProgress(`fetching ${queue}`)
  let fetchSize = 2
  let isBatched = false

  async function run(): Promise<void> {
    let failures = 0
    while (!signal.isStopped) {
      if (signal.isSet) slots.expect('first', true)
      const { kind, eventCount, jobCount } = inFlight.capacity()
      if (eventCount <= 0 || jobCount <= 0) {
        progress.rest()
        await signal.wait(idlePollMs, true)
        continue
      }
      signal.clear()
      progress.note()
      try {
        const batchSize = Math.min(sizeFor(kind, eventCount), jobCount)
        const fetchedAt = performance.now()
        const jobs = await boss.fetch<JobData>(queue, {
          ...{ batchSize, includeMetadata: true as const, ignoreGroups: [...coverage.ignoredGroups] },
          ...priorities[kind],
          ...prepared,
        })
        failures = 0
        if (jobs.length > 0) await database.faultPoint?.('worker.fetched')
        expectMore(kind, jobs, batchSize)
        for (const job of jobs.toSorted(byPosition)) begin(job, fetchedAt)
        adaptFetchSize(jobs)
        // Jobs that are inserted later wake this fetcher. Those that this fetch skipped are being fetched by another worker.
        if (kind === 'any' && jobs.length < batchSize && !signal.isSet) {
          progress.rest()
          await signal.wait(idlePollMs)
        }
      } catch (error) {
        const delayMs = failureDelayMs(failures)
        failures += 1
        logger.warn({ queue, reason: reasonOf(error), delayMs }, 'jobs could not be fetched, retrying')
        progress.note(delayMs)
        await signal.wait(delayMs)
      }
    }
    progress.rest()
  }

  function sizeFor(kind: FetchPlan['kind'], eventCount: number): number {
    if (!isBatched || kind === 'retry') return Math.min(fetchSize, eventCount)
    return metrics.averageMs > slowHandlerMs ? 1 : maxBatchesPerFetch
  }

  /** What a fetch says about the jobs that still wait in the queue, where retries come first. */
  function expectMore(
    kind: FetchPlan['kind'],
    jobs: readonly JobWithMetadata<JobData>[],
    wanted: number,
  ): void {
    const isFull = jobs.length === wanted
    const hasFirst = jobs.some((job) => !isRetry(job))
    if (kind !== 'first') slots.expect('retry', isFull && !hasFirst)
    if (kind === 'retry') return
    if (isFull && hasFirst) slots.expect('first', true)
    else if (!isFull && !signal.isSet) slots.expect('first', false)
  }

  function adaptFetchSize(jobs: readonly JobWithMetadata<JobData>[]): void {
    const first = jobs.filter((job) => !isRetry(job))
    isBatched = first.length === 0 ? isBatched : first.some((job) => isBatch(job.data))
    if (!isBatched && jobs.length === fetchSize) fetchSize = Math.min(fetchSize * 2, maxSinglesPerFetch)
  }

  const running = run()
  return { progress, stopped: async () => running }
}
