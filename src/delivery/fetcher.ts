import type { JobWithMetadata, PgBoss } from 'pg-boss'
import type { BusLogger } from '../events/logger.ts'
import type { Database } from '../outbox/database.ts'
import { failureDelayMs } from '../outbox/failure-delay.ts'
import { preparedOn } from './boss.ts'
import { byPlace } from './claimed-job.ts'
import { isBatch, type JobData } from './job.ts'
import { reasonOf } from './settler.ts'

/** With fast handlers, batches fetched at a time: what a full claim makes of 1,000 events. */
const maxBatchesPerFetch = 10
const maxSinglesPerFetch = 50

/** Handlers slower than this on average get one batch at a time, so that other processes get theirs. */
export const slowHandlerMs = 5

/** Without any bell, how often a fetcher looks. Upkeep finds every ready job sooner, with one query for many queues. */
const idlePollMs = 3_600_000

/** Fetches the jobs of a queue while there is room for them. */
export interface Fetcher {
  /** Jobs may be ready. */
  wake: () => void
  /** There may be room again. */
  madeRoom: () => void
  /** Resolves when no fetch is open and none will be. */
  stop: () => Promise<void>
}

export interface FetcherParts {
  readonly boss: PgBoss
  readonly database: Database
  readonly queue: string
  readonly logger: BusLogger
  /** How many single events, and how many jobs, could be taken now; none when either is 0. */
  readonly room: () => { readonly events: number; readonly jobs: number }
  /** How long handlers take, on average. */
  readonly averageMs: () => number
  /** Takes a job that was fetched no earlier than then, in the time of `performance.now()`. */
  readonly begin: (job: JobWithMetadata<JobData>, fetchedAt: number) => void
}

export function startFetcher({
  boss,
  database,
  queue,
  logger,
  room,
  averageMs,
  begin,
}: FetcherParts): Fetcher {
  let stopping = false
  let woken = false
  let fetchSize = 2
  let batched = false
  let interrupt: () => void = () => {}
  const prepared = preparedOn(database)

  async function run(): Promise<void> {
    let failures = 0
    while (!stopping) {
      const { events, jobs: jobRoom } = room()
      if (events <= 0 || jobRoom <= 0) {
        await pause(idlePollMs)
        continue
      }
      woken = false
      try {
        const wanted = batched
          ? averageMs() > slowHandlerMs
            ? 1
            : maxBatchesPerFetch
          : Math.min(fetchSize, events)
        const batchSize = Math.min(wanted, jobRoom)
        const fetchedAt = performance.now()
        const jobs = await boss.fetch<JobData>(queue, { batchSize, includeMetadata: true, ...prepared })
        failures = 0
        if (jobs.length > 0) await database.reach?.('worker.fetched')
        for (const job of jobs.toSorted(byPlace)) begin(job, fetchedAt)
        adaptFetchSize(jobs)
        // What comes later wakes; what another worker is just fetching is its own.
        if (jobs.length < batchSize && !woken) await pause(idlePollMs)
      } catch (error) {
        const delayMs = failureDelayMs(failures)
        failures += 1
        logger.warn({ queue, reason: reasonOf(error), delayMs }, 'jobs could not be fetched, trying again')
        await pause(delayMs)
      }
    }
  }

  /** Waits for a wake, for room, for the end, or for the time. */
  async function pause(durationMs: number): Promise<void> {
    if (stopping) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, durationMs)
      interrupt = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    interrupt = () => {}
  }

  function adaptFetchSize(jobs: readonly JobWithMetadata<JobData>[]): void {
    batched = jobs.length === 0 ? batched : jobs.some((job) => isBatch(job.data))
    if (!batched && jobs.length === fetchSize) fetchSize = Math.min(fetchSize * 2, maxSinglesPerFetch)
  }

  const running = run()

  return {
    wake() {
      woken = true
      interrupt()
    },
    madeRoom() {
      interrupt()
    },
    async stop() {
      stopping = true
      interrupt()
      await running
    },
  }
}
