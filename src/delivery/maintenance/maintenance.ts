import type { PgBoss } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { createLoopProgress, type LoopProgress } from '../../foundation/loop-progress.ts'
import type { Database } from '../../database/database.ts'
import type { PartitionKeeper } from '../../outbox/schema/partitions.ts'
import type { Notifier } from '../../outbox/relay/notifier.ts'
import { PolledQueues, type PolledQueue } from './polled-queues.ts'
import { pollQueues, type QueuePoll } from './queue-poll.ts'
import type { InstanceHeartbeat } from '../registry/instance-heartbeat.ts'
import { adjustJobTimes } from '../jobs/queue-state/job-times.ts'
import { createServerClock } from './server-clock.ts'
import { createCleanup } from './cleanup.ts'
import { findDueQueues, lookIntervalMs } from './due-queues.ts'
import type { Worker } from '../worker/worker-dependencies.ts'
import { queueName } from '../jobs/queues.ts'

/**
 * How often the leader makes pg-boss count, expire and delete jobs, which determines how current its dashboard is; and
 * the delay of the first time.
 */
const cleanupIntervalMs = 60_000
const firstCleanupMs = 5000

/** How often the leader creates partitions for coming months. */
const partitionIntervalMs = 5 * 60_000

/** The delay before retrying partitions that could not be created because the log was in use. */
const partitionRetryMs = 30_000

/** How often a process looks for keys whose job has disappeared: see recover-keys.ts. */
const recoverIntervalMs = 60_000

/** pg-boss maintains a queue at most once a second: a poll that was too early is repeated after this delay. */
const expiredPauseMs = 250

/** The pause after a failure. */
const retryPauseMs = 1000

/** Does everything that no event triggers: wakes workers for due retries, finds dead workers, cleans up the queues. */
export interface Maintenance {
  readonly progress: LoopProgress
  /** Adds a worker, whose queue is polled once the maintenance runs. */
  watch: (worker: Worker) => void
  /** Polls the queue of a subscription no longer. */
  unwatch: (subscription: string) => void
  start: (notifier: Pick<Notifier, 'leading' | 'polling'>, instanceHeartbeat: InstanceHeartbeat) => void
  /** Polls the queue of a subscription now, because something may be due before its next turn. */
  requestPoll: (subscription: string) => void
  /** Runs everything that is due now, and checks the registration of this process. */
  runNow: () => void
  stop: () => Promise<void>
}

export interface MaintenanceParts {
  readonly database: Database
  readonly boss: PgBoss
  readonly partitions: PartitionKeeper
  /** Whether all partitions existed at the start. */
  readonly hasPartitions: boolean
  readonly logger: BusLogger
}

/** pg-boss sends no notification for retries, dead letters and redrives, nor, with its timers off, for dead workers. */
export function createMaintenance(parts: MaintenanceParts): Maintenance {
  const { database, boss, partitions, logger } = parts
  const queues = new PolledQueues()
  const clock = createServerClock()
  const cleanUp = createCleanup(database, boss)
  const progress = createLoopProgress('maintenance')
  let runs = false
  let notifier: Pick<Notifier, 'leading' | 'polling'> = { leading: false, polling: false }
  let maintainInstance: InstanceHeartbeat['maintain'] = async () => {}
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let restUntil = Number.NEGATIVE_INFINITY
  let cleanupDueAt = performance.now() + firstCleanupMs
  let isCleaningUp = false
  let partitionsDueAt = performance.now() + (parts.hasPartitions ? partitionIntervalMs : partitionRetryMs)
  let recoveredAt = Number.NEGATIVE_INFINITY
  let lookedAt = performance.now()

  /** Without notifications there is no leader: each process runs the tasks that are harmless when repeated. */
  const isLeader = (): boolean => notifier.leading || notifier.polling

  function schedule(): void {
    if (!runs || running !== undefined) return
    const at = queues.nextAt()
    clearTimeout(timer)
    const delayMs = Math.max(0, Math.max(at, restUntil) - performance.now())
    progress.note(delayMs)
    timer = setTimeout(() => {
      running ??= pass().finally(() => {
        running = undefined
        schedule()
      })
    }, delayMs)
  }

  async function pass(): Promise<void> {
    const beganAt = performance.now()
    try {
      if (queues.takesTurns && beganAt - lookedAt >= lookIntervalMs) await findDue(beganAt)
      const names = queues.takeNext(beganAt, notifier.polling)
      if (names.length > 0) await poll(names)
      // Polls take at most half of the time, however many are requested.
      restUntil = 2 * performance.now() - beganAt
      await maintainInstance(isLeader()).catch((error: unknown) => {
        logger.warn(
          { reason: reasonOf(error) },
          'the heartbeat of this process could not be written, retrying',
        )
      })
      if (performance.now() - recoveredAt > recoverIntervalMs) await recover()
      if (isLeader() && performance.now() > partitionsDueAt) await keepPartitions()
      if (isLeader() && performance.now() > cleanupDueAt) startCleanup()
    } catch (error) {
      logger.warn({ reason: reasonOf(error) }, 'maintenance failed, retrying')
      restUntil = performance.now() + retryPauseMs
    }
  }

  /** With more queues than one poll takes, a retry would wait for the turn of its queue. */
  async function findDue(now: number): Promise<void> {
    const byId = new Map([...queues.values()].map((queue) => [queue.worker.subscriptionId, queue]))
    const due = await findDueQueues(database, [...byId.keys()], now - lookedAt)
    lookedAt = now
    for (const { subscriptionId, dueMs } of due) {
      const queue = byId.get(subscriptionId)
      if (queue !== undefined) queue.dueAt = Math.min(queue.dueAt, now + dueMs)
    }
  }

  async function poll(names: readonly string[]): Promise<void> {
    const askedAt = performance.now()
    const swept: PolledQueue[] = []
    const requests = names.map((name) => {
      const queue = queues.get(name)
      if (queue === undefined || !queue.mayForgetFloor(askedAt)) return { name, floor: queue?.floor }
      queue.isRequested = false
      swept.push(queue)
      return { name, floor: undefined }
    })
    const found = await pollQueues(database, requests)
    const answeredAt = performance.now()
    for (const queue of swept) {
      queue.sweptAt = askedAt
      queue.sweepMs = answeredAt - askedAt
    }
    const setMs = found.clockMs === undefined ? 0 : clock.note(found.clockMs, askedAt, answeredAt)
    if (setMs !== 0) await onClockSet(setMs)
    for (const seen of found.queues) {
      const queue = queues.get(seen.name)
      if (queue !== undefined) await applyPoll(seen, queue, askedAt, setMs !== 0)
    }
  }

  async function applyPoll(
    seen: QueuePoll,
    queue: PolledQueue,
    askedAt: number,
    isAdjusted: boolean,
  ): Promise<void> {
    const { worker } = queue
    const now = performance.now()
    // Moved jobs may be below the floor.
    if (!isAdjusted) queue.floor = seen.floor
    worker.applyState(seen.state, askedAt)
    const dueAt = seen.dueMs === undefined ? Number.POSITIVE_INFINITY : now + Math.max(0, seen.dueMs) + 5
    queue.dueAt = Math.min(queue.dueAt, dueAt)
    if (queue.isRequested) queue.dueAt = Math.min(queue.dueAt, queue.nextSweepAt)
    if (seen.isAhead && !isAdjusted) await adjustTimes(queue, 0)
    // After the clock was set, live workers have not sent a heartbeat yet either.
    if (seen.lapsed && !isAdjusted) {
      // pg-boss fails the attempts of silent workers: their jobs run again, or become dead letters.
      await boss.supervise(seen.name, { reindex: false })
      await database.faultPoint?.('maintenance.expired')
      if (worker.ordered) await worker.recoverKeys()
      // When these jobs are due is not known yet.
      queue.dueAt = Math.min(queue.dueAt, performance.now() + expiredPauseMs)
    }
    if (seen.lapsed || seen.ready) worker.wake()
  }

  /** The clock was set: every time in the database refers to another clock. */
  async function onClockSet(setMs: number): Promise<void> {
    logger.warn({ setSeconds: Math.round(setMs / 1000) }, 'the clock of the database server was set')
    cleanupDueAt = performance.now() + cleanupIntervalMs
    for (const queue of queues.values()) await adjustTimes(queue, setMs)
  }

  async function adjustTimes(queue: PolledQueue, setMs: number): Promise<void> {
    const { worker } = queue
    const movedCount = await adjustJobTimes(database, worker.name, setMs)
    // Its floor is a time of the previous clock.
    queue.floor = undefined
    queue.dueAt = performance.now()
    if (movedCount > 0)
      logger.warn(
        { subscription: worker.name, movedCount },
        'jobs were rescheduled: the clock of the database server had been set back',
      )
  }

  async function recover(): Promise<void> {
    recoveredAt = performance.now()
    const ordered = [...queues.values()].flatMap(({ worker }) => (worker.ordered ? [worker] : []))
    if (ordered.length === 0) return
    const { rows } = await database.query<{ id: number }>(
      `select s.id from unnest($1::int[]) as s (id) where exists (
         select from bus.ordered_keys k where k.subscription_id = s.id and k.state in ('active', 'overrunning'))`,
      [ordered.map(({ subscriptionId }) => subscriptionId)],
    )
    const active = new Set(rows.map(({ id }) => id))
    for (const worker of ordered) if (active.has(worker.subscriptionId)) await worker.recoverKeys()
  }

  async function keepPartitions(): Promise<void> {
    const isDone = await partitions.keep()
    partitionsDueAt = performance.now() + (isDone ? partitionIntervalMs : partitionRetryMs)
  }

  /** Not awaited: with many queues and a distant database it may take long, and due retries must not wait for it. */
  function startCleanup(): void {
    if (isCleaningUp) return
    isCleaningUp = true
    cleanupDueAt = performance.now() + cleanupIntervalMs
    cleanUp()
      .catch((error: unknown) => {
        if (runs) logger.warn({ reason: reasonOf(error) }, 'maintenance failed, retrying')
      })
      .finally(() => {
        isCleaningUp = false
      })
  }

  return {
    progress,
    watch(worker) {
      queues.add(worker)
    },
    unwatch(subscription) {
      queues.remove(queueName(subscription))
    },
    start(startedNotifier, instanceHeartbeat) {
      notifier = startedNotifier
      maintainInstance = async (leads) => instanceHeartbeat.maintain(leads)
      // Immediately: a new process takes over what the previous one left behind.
      queues.startTurns()
      runs = true
      schedule()
    },
    runNow() {
      queues.runNow()
      schedule()
    },
    requestPoll(subscription) {
      if (queues.request(queueName(subscription))) schedule()
    },
    async stop() {
      runs = false
      clearTimeout(timer)
      await running
      progress.rest()
    },
  }
}
