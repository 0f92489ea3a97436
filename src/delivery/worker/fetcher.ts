import type { JobWithMetadata, PgBoss } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { Database } from '../../database/database.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { preparedOn } from '../jobs/boss.ts'
import { laneOf } from '../in-flight/active-job.ts'
import { byPlace } from '../jobs/claimed-job.ts'
import { isBatch, laterPriority, type JobData } from '../jobs/job.ts'
import type { Room } from '../in-flight/jobs-in-flight.ts'
import type { Slots } from '../concurrency/handler-slots.ts'

/** With fast handlers, batches fetched at a time: what a full claim makes of 1,000 events. */
const maxBatchesPerFetch = 10
const maxSinglesPerFetch = 50

/** Handlers slower than this on average get one batch at a time, so that other processes get theirs. */
export const slowHandlerMs = 5

/** Without any bell, how often a fetcher looks. Maintenance finds every ready job sooner, with one query for many queues. */
const idlePollMs = 3_600_000

/** What of the queue a fetch is to look at. */
const lanes = {
  any: {},
  first: { maxPriority: laterPriority - 1 },
  later: { minPriority: laterPriority },
} as const

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
  /** What could be taken now: single events, and jobs; none when either is 0. */
  readonly room: () => Room
  readonly slots: Slots
  /** How long handlers take, on average. */
  readonly averageMs: () => number
  /** The groups of jobs that are left to other code. */
  readonly ignoredGroups: () => readonly string[]
  /** Takes a job that was fetched no earlier than then, in the time of `performance.now()`. */
  readonly begin: (job: JobWithMetadata<JobData>, fetchedAt: number) => void
}

export function startFetcher({
  boss,
  database,
  queue,
  logger,
  room,
  slots,
  averageMs,
  ignoredGroups,
  begin,
}: FetcherParts): Fetcher {
  let stopping = false
  let woken = false
  let fetchSize = 2
  let batched = false
  let waitsForRoom = false
  let interrupt: () => void = () => {}
  const prepared = preparedOn(database)

  async function run(): Promise<void> {
    let failures = 0
    while (!stopping) {
      const { lane, events, jobs: jobRoom } = room()
      if (events <= 0 || jobRoom <= 0) {
        waitsForRoom = true
        await pause(idlePollMs)
        waitsForRoom = false
        continue
      }
      woken = false
      try {
        const wanted =
          batched && lane !== 'later'
            ? averageMs() > slowHandlerMs
              ? 1
              : maxBatchesPerFetch
            : Math.min(fetchSize, events)
        const batchSize = Math.min(wanted, jobRoom)
        const fetchedAt = performance.now()
        const jobs = await boss.fetch<JobData>(queue, {
          ...{ batchSize, includeMetadata: true as const, ignoreGroups: [...ignoredGroups()] },
          ...lanes[lane],
          ...prepared,
        })
        failures = 0
        if (jobs.length > 0) await database.faultPoint?.('worker.fetched')
        noteLanes(lane, jobs, batchSize)
        for (const job of jobs.toSorted(byPlace)) begin(job, fetchedAt)
        adaptFetchSize(jobs)
        // What comes later wakes; what another worker is just fetching is its own.
        if (lane === 'any' && jobs.length < batchSize && !woken) await pause(idlePollMs)
      } catch (error) {
        const delayMs = failureDelayMs(failures)
        failures += 1
        logger.warn({ queue, reason: reasonOf(error), delayMs }, 'jobs could not be fetched, retrying')
        await pause(delayMs)
      }
    }
  }

  /** Waits for a wake, for room, for the end, or for the time. */
  async function pause(durationMs: number): Promise<void> {
    if (stopping) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, durationMs).unref()
      interrupt = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    interrupt = () => {}
  }

  /** What a fetch says about what else waits in the queue, where later attempts come first. */
  function noteLanes(lane: Room['lane'], jobs: readonly JobWithMetadata<JobData>[], wanted: number): void {
    const isFull = jobs.length === wanted
    const hasFirst = jobs.some((job) => laneOf(job) === 'first')
    if (lane !== 'first') slots.expect('later', isFull && !hasFirst)
    if (lane === 'later') return
    if (isFull && hasFirst) slots.expect('first', true)
    else if (!isFull && !woken) slots.expect('first', false)
  }

  function adaptFetchSize(jobs: readonly JobWithMetadata<JobData>[]): void {
    const first = jobs.filter((job) => laneOf(job) === 'first')
    batched = first.length === 0 ? batched : first.some((job) => isBatch(job.data))
    if (!batched && jobs.length === fetchSize) fetchSize = Math.min(fetchSize * 2, maxSinglesPerFetch)
  }

  const running = run()

  return {
    wake() {
      woken = true
      slots.expect('first', true)
      interrupt()
    },
    madeRoom() {
      // An empty queue stays empty until somebody says otherwise: looking after each event costs as much as the event.
      if (waitsForRoom) interrupt()
    },
    async stop() {
      stopping = true
      interrupt()
      await running
    },
  }
}
