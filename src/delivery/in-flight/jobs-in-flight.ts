import type { RunningAttempt, Overrun } from '../attempts/attempt.ts'
import {
  planFetch,
  type AttemptKind,
  type FetchPlan,
  type HandlerSlots,
} from '../concurrency/handler-slots.ts'
import type { PauseAndBreaker } from '../flow-control/pause-and-breaker.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import { notifyProcesses } from '../jobs/notify-processes.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'

/** Jobs in flight at most, those that wait for their settlement included. */
const maxJobs = 64

/**
 * With so many events in flight, those that wait for their settlement included, no more are fetched: twice what one fetch brings is
 * enough to read, handle and write at the same time, and more only takes memory.
 */
const maxEvents = 2000

/** A job that a worker has fetched and not yet settled. */
export interface InFlightJob {
  readonly claim: JobClaim
  readonly kind: AttemptKind
  /** The ids of its events that are not over. */
  readonly remaining: ReadonlySet<string>
  /** How many handler slots it may take. */
  readonly weight: number
  /** How many of its events wait for their tenant, and not for a handler slot. */
  readonly waitingForTenantCount: number
  /** What runs: handlers, or transactions of handlers. */
  readonly running: ReadonlyMap<string, Pick<RunningAttempt, 'abort'>>
  readonly isDone: boolean
  readonly isInterrupted: boolean
  /** Its completion is being committed: a heartbeat that does not find it means nothing. */
  readonly isCompleting: boolean
  readonly heartbeatSeconds: number
  /** When the claim was last known to be current, in the time of `performance.now()`. */
  confirmedAt: number
  /** Another worker has taken it over. */
  onClaimLost: () => void
  /** The database was not reached for as long as a claim lasts: another worker may have taken it over. */
  onClaimExpired: () => void
}

/** How much may be fetched. Nothing when either count is 0 or less. */
interface FetchCapacity extends FetchPlan {
  readonly jobCount: number
}

/** The jobs that a worker has fetched and not yet settled. */
export interface JobsInFlight<J extends InFlightJob> extends Iterable<J> {
  readonly size: number
  /** The events of those jobs, settled ones included. */
  readonly eventCount: number
  add(job: J): void
  /** The weight of a job that was added has changed by this much. */
  addWeight: (kind: AttemptKind, difference: number) => void
  /** Counts a handler that runs although its event is settled, until it has ended: it keeps its slot. */
  outlive: (kind: AttemptKind, overrun: Overrun, onEnded: () => void) => void
  drop(job: J): void
  /** How much may be fetched now. */
  capacity: () => FetchCapacity
  /** Whether a job that arrives now would be taken at once. */
  hasCapacity: () => boolean
  /** An event is over, or waits for something other than a slot: tells the fetcher if there is capacity now. */
  onCapacity: () => void
  /** Resolves when no handler runs, or at a moment of `performance.now()`. */
  untilIdle: (deadline: number) => Promise<void>
}

/** @param slotCount - how many events may wait for a slot, or have one */
export function createJobsInFlight<J extends InFlightJob>(
  slotCount: () => number,
  slots: HandlerSlots,
  breaker: PauseAndBreaker,
  signal: FetchSignal,
): JobsInFlight<J> {
  // Not a set: V8 keeps every table that a set ever had until the next full collection, with the jobs in it.
  let active: readonly J[] = []
  const weights = { first: 0, retry: 0 }
  const outliving = { first: 0, retry: 0 }
  let eventCount = 0

  /** Jobs that only wait for their tenants: they do not keep others from being fetched, up to a bound. */
  function waitingForTenants(): { readonly jobCount: number; readonly eventCount: number } {
    let jobCount = 0
    let waitingEvents = 0
    for (const job of active) {
      if (job.waitingForTenantCount === 0 || job.weight > 0) continue
      jobCount += 1
      waitingEvents += job.claim.data.eventIds.length
    }
    return { jobCount: Math.min(jobCount, maxJobs), eventCount: Math.min(waitingEvents, maxEvents) }
  }

  function runningCount(): number {
    let count = outliving.first + outliving.retry
    for (const job of active) count += job.running.size
    return count
  }

  function freeCapacity(): FetchCapacity {
    const taken = { first: weights.first + outliving.first, retry: weights.retry + outliving.retry }
    const plan = planFetch(slotCount(), taken, slots)
    if (plan.eventCount <= 0) return { ...plan, jobCount: 0 }
    const waiting = waitingForTenants()
    const isFull = eventCount - waiting.eventCount >= maxEvents
    return { ...plan, jobCount: isFull ? 0 : maxJobs - active.length + waiting.jobCount }
  }

  const inFlight: JobsInFlight<J> = {
    [Symbol.iterator]: () => active.values(),
    get size() {
      return active.length
    },
    get eventCount() {
      return eventCount
    },
    add(job) {
      active = [...active, job]
      weights[job.kind] += job.weight
      eventCount += job.claim.data.eventIds.length
    },
    addWeight(kind, difference) {
      weights[kind] += difference
    },
    outlive(kind, { ended }, onEnded) {
      outliving[kind] += 1
      void ended.then(() => {
        outliving[kind] -= 1
        onEnded()
      })
    },
    drop(job) {
      if (!active.includes(job)) return
      active = active.filter((other) => other !== job)
      eventCount -= job.claim.data.eventIds.length
    },
    capacity() {
      if (!breaker.isHalted) return freeCapacity()
      // What is in flight is not to wait for jobs that are not fetched.
      slots.expect('retry', false)
      return { kind: 'any', eventCount: breaker.wantsProbe ? 1 : 0, jobCount: 1 }
    },
    hasCapacity() {
      if (breaker.isHalted) return false
      const { eventCount: freeEvents, jobCount } = freeCapacity()
      return freeEvents > 0 && jobCount > 0
    },
    onCapacity() {
      if (inFlight.hasCapacity()) signal.capacityFreed()
    },
    async untilIdle(deadline) {
      while (runningCount() > 0 && performance.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, 5).unref())
    },
  }
  return inFlight
}

/** Tells the fetcher of a worker to fetch. */
export interface FetchSignal {
  /** Jobs may be ready. */
  wake: () => void
  /** Jobs are ready: for this worker or, once it is stopping, for other processes. */
  jobsReady: () => Promise<void>
  /** There may be capacity for more jobs again. */
  capacityFreed: () => void
  /** From now on no jobs are fetched. */
  stop: () => void
  readonly isStopped: boolean
  /** Whether `wake` was called since `clear`. */
  readonly isSet: boolean
  clear: () => void
  /** Waits for `wake`, for `stop`, for `capacityFreed` if that is what it waits for, or for the time. */
  wait: (durationMs: number, forCapacity?: boolean) => Promise<void>
}

export function createFetchSignal(context: SubscriptionContext): FetchSignal {
  let isStopped = false
  let isSet = false
  let waitsForCapacity = false
  let interrupt: () => void = () => {}

  const signal: FetchSignal = {
    wake() {
      isSet = true
      interrupt()
    },
    async jobsReady() {
      if (isStopped) await notifyProcesses(context)
      else signal.wake()
    },
    capacityFreed() {
      // An empty queue stays empty until it is notified: a fetch after each event would cost as much as the event.
      if (waitsForCapacity) interrupt()
    },
    stop() {
      isStopped = true
      interrupt()
    },
    get isStopped() {
      return isStopped
    },
    get isSet() {
      return isSet
    },
    clear() {
      isSet = false
    },
    async wait(durationMs, forCapacity = false) {
      if (isStopped) return
      waitsForCapacity = forCapacity
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, durationMs).unref()
        interrupt = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      waitsForCapacity = false
      interrupt = () => {}
    },
  }
  return signal
}
