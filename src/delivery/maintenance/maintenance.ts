import type { PgBoss } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { Database } from '../../database/database.ts'
import type { PartitionKeeper } from '../../outbox/schema/partitions.ts'
import { lookInto, type LookFloor, type QueueLook } from './queue-poll.ts'
import type { Presence } from '../registry/presence.ts'
import { createServerClock, fitToClock } from './server-clock.ts'
import { createTidying } from './cleanup.ts'
import type { Worker } from '../worker/worker-parts.ts'
import { queueName } from '../jobs/queues.ts'

/** How often one process looks into each of its queues for due retries and lost workers. */
const lookIntervalMs = 5000

/** The same where notifications do not arrive: then nobody says either that another process has inserted jobs. */
const pollingIntervalMs = 1000

/** Queues in one look. With more of them a process looks more often, and at some each time. */
const queuesPerLook = 24

/**
 * But not more often than this: then each queue's turn comes later. With 1,000 queues it comes every 42 seconds, or every 4 where
 * notifications do not arrive.
 */
const minPauseMs = 1000
const minPollingPauseMs = 100

/** How often a look begins at the very first job of a queue, whatever the last one has seen. */
const sweepIntervalMs = 60_000

/** A look that does so may take this share of a process's time. It is slow only while an old snapshot is held. */
const sweepShare = 1 / 20

/** How often the leader lets pg-boss count, expire and delete jobs, which is how fresh its dashboard is; and how soon after its start. */
const tidyIntervalMs = 60_000
const firstTidyMs = 5000

/** How often it makes partitions for coming months. */
const partitionIntervalMs = 5 * 60_000

/** How soon partitions that could not be made, because the log was in use, are tried again. */
const partitionRetryMs = 30_000

/** How often a process looks for keys whose job ended without a word: see recover-keys.ts. */
const recoverIntervalMs = 60_000

/** pg-boss looks after a queue once a second at most: whoever was too early looks again after this long. */
const expiredPauseMs = 250

/** Does what no event triggers: wakes workers for due retries, finds dead workers, keeps the queues tidy. */
export interface Upkeep {
  /** Looks into the queue of a subscription now, because something may be due sooner than at its next turn. */
  soon: (subscription: string) => void
  /** Does what is due, and looks whether the registration of this process is still there. */
  atOnce: () => void
  stop: () => Promise<void>
}

export interface UpkeepParts {
  readonly database: Database
  readonly boss: PgBoss
  readonly workers: readonly Worker[]
  readonly partitions: PartitionKeeper
  /** Whether they were all there at the start. */
  readonly hasPartitions: boolean
  readonly isLeader: () => boolean
  readonly isPolling: () => boolean
  readonly presence: Presence
  readonly logger: BusLogger
}

interface Watched {
  readonly worker: Worker
  /** When it is to be looked at though it is not its turn, in the time of `performance.now()`. */
  dueAt: number
  /** Somebody has asked for a look, and it is to begin at the very first job. */
  asked: boolean
  floor: LookFloor | undefined
  /** When the last look without a floor began, and how long it took. */
  sweptAt: number
  sweepMs: number
}

/** pg-boss notifies nobody of retries, dead letters and redrives, and with its timers off nobody of dead workers. */
export function startUpkeep(parts: UpkeepParts): Upkeep {
  const { database, boss, workers, partitions, isLeader, isPolling, presence, logger } = parts
  /** Whose turn is next comes first. */
  const queues = new Map<string, Watched>()
  for (const worker of workers)
    queues.set(queueName(worker.name), {
      ...{ worker, dueAt: Number.POSITIVE_INFINITY, asked: false, floor: undefined },
      ...{ sweptAt: Number.NEGATIVE_INFINITY, sweepMs: 0 },
    })
  const clock = createServerClock()
  const tidy = createTidying(database, boss)
  let stopped = false
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let turnAt = performance.now()
  let restUntil = Number.NEGATIVE_INFINITY
  // At once: a process that starts finds what one before it left behind.
  let unseenCount = queues.size
  let tidyDueAt = performance.now() + firstTidyMs
  let tidying = false
  let partitionsDueAt = performance.now() + (parts.hasPartitions ? partitionIntervalMs : partitionRetryMs)
  let recoveredAt = Number.NEGATIVE_INFINITY

  function schedule(): void {
    if (stopped || running !== undefined) return
    let at = turnAt
    for (const { dueAt } of queues.values()) at = Math.min(at, dueAt)
    clearTimeout(timer)
    timer = setTimeout(
      () => {
        running ??= pass().finally(() => {
          running = undefined
          schedule()
        })
      },
      Math.max(0, Math.max(at, restUntil) - performance.now()),
    )
  }

  async function pass(): Promise<void> {
    const beganAt = performance.now()
    const names = takeNext(beganAt)
    try {
      if (names.length > 0) await look(names)
      // However many ask, half of the time at most.
      restUntil = 2 * performance.now() - beganAt
      await presence.upkeep(isLeader()).catch((error: unknown) => {
        logger.warn({ reason: reasonOf(error) }, 'this process could not say that it is there, trying again')
      })
      if (performance.now() - recoveredAt > recoverIntervalMs) await recover()
      if (isLeader() && performance.now() > partitionsDueAt) await keepPartitions()
      if (isLeader() && performance.now() > tidyDueAt) tidyBeside()
    } catch (error) {
      logger.warn({ reason: reasonOf(error) }, 'upkeep failed, trying again')
      restUntil = performance.now() + minPauseMs
    }
  }

  /** Those that are due, and those whose turn it is. */
  function takeNext(now: number): readonly string[] {
    const due = [...queues].filter(([, { dueAt }]) => dueAt <= now).map(([name]) => name)
    const names = new Set(due.slice(0, queuesPerLook))
    if (now >= turnAt) {
      for (const name of queues.keys()) if (names.size < queuesPerLook) names.add(name)
      const turns = Math.max(1, Math.ceil(queues.size / queuesPerLook))
      unseenCount -= names.size
      if (unseenCount <= 0)
        turnAt = isPolling()
          ? now + Math.max(minPollingPauseMs, pollingIntervalMs / turns)
          : now + Math.max(minPauseMs, lookIntervalMs / turns)
    }
    for (const name of names) {
      const watched = queues.get(name)
      if (watched === undefined) continue
      watched.dueAt = Number.POSITIVE_INFINITY
      queues.delete(name)
      queues.set(name, watched)
    }
    return [...names]
  }

  /** Whether a look begins at the very first job. Somebody who asks may have put one back below the floor. */
  function mayForgetFloor({ asked, sweptAt, sweepMs }: Watched, now: number): boolean {
    return now - sweptAt > Math.max(asked ? 0 : sweepIntervalMs, sweepMs / sweepShare)
  }

  async function look(names: readonly string[]): Promise<void> {
    const askedAt = performance.now()
    const swept: Watched[] = []
    const asked = names.map((name) => {
      const watched = queues.get(name)
      if (watched === undefined || !mayForgetFloor(watched, askedAt)) return { name, floor: watched?.floor }
      watched.asked = false
      swept.push(watched)
      return { name, floor: undefined }
    })
    const found = await lookInto(database, asked)
    const answeredAt = performance.now()
    for (const watched of swept) {
      watched.sweptAt = askedAt
      watched.sweepMs = answeredAt - askedAt
    }
    const setMs = found.clockMs === undefined ? 0 : clock.note(found.clockMs, askedAt, answeredAt)
    if (setMs !== 0) await followClock(setMs)
    for (const seen of found.queues) {
      const watched = queues.get(seen.name)
      if (watched !== undefined) await act(seen, watched, askedAt, setMs !== 0)
    }
  }

  async function act(seen: QueueLook, watched: Watched, askedAt: number, isFit: boolean): Promise<void> {
    const { worker } = watched
    const now = performance.now()
    // Jobs that were moved may lie below it.
    if (!isFit) watched.floor = seen.floor
    worker.applyState(seen.state, askedAt)
    const dueAt = seen.dueMs === undefined ? Number.POSITIVE_INFINITY : now + Math.max(0, seen.dueMs) + 5
    watched.dueAt = Math.min(watched.dueAt, dueAt)
    if (watched.asked) watched.dueAt = Math.min(watched.dueAt, watched.sweptAt + watched.sweepMs / sweepShare)
    if (seen.isAhead && !isFit) await fit(watched, 0)
    // The clock was set, and who was alive before has not been heard of since.
    if (seen.lapsed && !isFit) {
      // pg-boss fails the attempts of workers that were not heard of: they run again, or go to the dead letters.
      await boss.supervise(seen.name, { reindex: false })
      await database.reach?.('upkeep.expired')
      if (worker.ordered) await worker.recoverKeys()
      // When those are due is not known yet.
      watched.dueAt = Math.min(watched.dueAt, performance.now() + expiredPauseMs)
    }
    if (seen.lapsed || seen.ready) worker.wake()
  }

  /** The clock was set: all times that the database holds are those of another one. */
  async function followClock(setMs: number): Promise<void> {
    logger.warn({ setSeconds: Math.round(setMs / 1000) }, 'the clock of the database server was set')
    tidyDueAt = performance.now() + tidyIntervalMs
    for (const watched of queues.values()) await fit(watched, setMs)
  }

  async function fit(watched: Watched, setMs: number): Promise<void> {
    const { worker } = watched
    const movedCount = await fitToClock(database, worker.name, setMs)
    // Its floor is a time of the clock before.
    watched.floor = undefined
    watched.dueAt = performance.now()
    if (movedCount > 0)
      logger.warn(
        { subscription: worker.name, movedCount },
        'jobs waited for a time that the clock of the database server had shown before: they were moved',
      )
  }

  async function recover(): Promise<void> {
    recoveredAt = performance.now()
    const ordered = workers.filter((worker) => worker.ordered)
    if (ordered.length === 0) return
    const { rows } = await database.query<{ id: number }>(
      `select s.id from unnest($1::int[]) as s (id) where exists (
         select from bus.ordered_keys k where k.subscription_id = s.id and k.state in ('active', 'overrunning'))`,
      [ordered.map(({ subscriptionId }) => subscriptionId)],
    )
    const flowing = new Set(rows.map(({ id }) => id))
    for (const worker of ordered) if (flowing.has(worker.subscriptionId)) await worker.recoverKeys()
  }

  async function keepPartitions(): Promise<void> {
    const isDone = await partitions.keep()
    partitionsDueAt = performance.now() + (isDone ? partitionIntervalMs : partitionRetryMs)
  }

  /** Not waited for: it may take long, with many queues and a database that is far away, and retries that are due are not to wait for it. */
  function tidyBeside(): void {
    if (tidying) return
    tidying = true
    tidyDueAt = performance.now() + tidyIntervalMs
    tidy()
      .catch((error: unknown) => {
        if (!stopped) logger.warn({ reason: reasonOf(error) }, 'upkeep failed, trying again')
      })
      .finally(() => {
        tidying = false
      })
  }

  schedule()

  return {
    atOnce() {
      turnAt = performance.now()
      schedule()
    },
    soon(subscription) {
      const watched = queues.get(queueName(subscription))
      if (watched === undefined) return
      watched.asked = true
      watched.dueAt = performance.now()
      schedule()
    },
    async stop() {
      stopped = true
      clearTimeout(timer)
      await running
    },
  }
}
