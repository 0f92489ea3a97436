import type { Worker } from '../worker/worker-dependencies.ts'
import { queueName } from '../jobs/queues.ts'
import type { PollFloor } from '../jobs/queue-state/poll-queue.ts'

/** How often a process polls each of its queues for due retries and lost workers. */
const pollIntervalMs = 5000

/** The same interval without notifications: then polling is also the only way to find jobs that another process has inserted. */
const pollIntervalWithoutNotificationsMs = 1000

/** Maximum number of queues in one poll. A process with more queues polls more often, a part of them each time. */
const queuesPerPoll = 24

/**
 * The shortest interval between polls; each queue is then polled less often. With 1,000 queues it is every 42 seconds,
 * or every 4 seconds without notifications.
 */
const minPauseMs = 1000
const minPauseWithoutNotificationsMs = 100

/** How often a poll starts at the very first job of a queue, whatever the last poll has seen. */
const sweepIntervalMs = 60_000

/** Maximum share of a process's time for such polls. They are slow only while an old snapshot is held. */
const sweepShare = 1 / 20

/** A queue that maintenance polls, and what is known from its polls. */
export class PolledQueue {
  readonly worker: Worker
  /** When to poll the queue out of turn, in terms of `performance.now()`. */
  dueAt = Number.POSITIVE_INFINITY
  /** A poll was requested, and must start at the very first job. */
  isRequested = false
  floor: PollFloor | undefined
  /** When the last poll without a floor started, and how long it took. */
  sweptAt = Number.NEGATIVE_INFINITY
  sweepMs = 0

  constructor(worker: Worker) {
    this.worker = worker
  }

  /** Whether a poll starts at the very first job. A requested poll may concern a job that was put back below the floor. */
  mayForgetFloor(now: number): boolean {
    return now - this.sweptAt > Math.max(this.isRequested ? 0 : sweepIntervalMs, this.sweepMs / sweepShare)
  }

  /** When the next requested poll may start at the very first job. */
  get nextSweepAt(): number {
    return this.sweptAt + this.sweepMs / sweepShare
  }
}

/** The queues of a process, and when each is polled: in turns, and whenever something in it is due. */
export class PolledQueues {
  /** Ordered by turn: the next queue to poll comes first. */
  readonly #queues = new Map<string, PolledQueue>()
  #turnAt = performance.now()
  #unpolledCount = 0

  add(worker: Worker): void {
    this.#queues.set(queueName(worker.name), new PolledQueue(worker))
  }

  remove(name: string): void {
    this.#queues.delete(name)
  }

  get(name: string): PolledQueue | undefined {
    return this.#queues.get(name)
  }

  /** Whether there are more queues than one poll takes. */
  get takesTurns(): boolean {
    return this.#queues.size > queuesPerPoll
  }

  values(): Iterable<PolledQueue> {
    return this.#queues.values()
  }

  /** The first turn of all queues comes immediately: a new process takes over what the previous one left behind. */
  startTurns(): void {
    this.#unpolledCount = this.#queues.size
    this.#turnAt = performance.now()
  }

  runNow(): void {
    this.#turnAt = performance.now()
  }

  /** Makes a queue due. Returns false if this process does not have it. */
  request(name: string): boolean {
    const queue = this.#queues.get(name)
    if (queue === undefined) return false
    queue.isRequested = true
    queue.dueAt = performance.now()
    return true
  }

  /** When the next queue is to be polled. */
  nextAt(): number {
    let at = this.#turnAt
    for (const { dueAt } of this.#queues.values()) at = Math.min(at, dueAt)
    return at
  }

  /** Takes the queues that are due, and those whose turn it is. */
  takeNext(now: number, isWithoutNotifications: boolean): readonly string[] {
    const due = [...this.#queues].filter(([, { dueAt }]) => dueAt <= now).map(([name]) => name)
    const names = new Set(due.slice(0, queuesPerPoll))
    if (now >= this.#turnAt) {
      for (const name of this.#queues.keys()) if (names.size < queuesPerPoll) names.add(name)
      const turnCount = Math.max(1, Math.ceil(this.#queues.size / queuesPerPoll))
      this.#unpolledCount -= names.size
      if (this.#unpolledCount <= 0)
        this.#turnAt = isWithoutNotifications
          ? now + Math.max(minPauseWithoutNotificationsMs, pollIntervalWithoutNotificationsMs / turnCount)
          : now + Math.max(minPauseMs, pollIntervalMs / turnCount)
    }
    for (const name of names) {
      const queue = this.#queues.get(name)
      if (queue === undefined) continue
      queue.dueAt = Number.POSITIVE_INFINITY
      this.#queues.delete(name)
      this.#queues.set(name, queue)
    }
    return [...names]
  }
}
