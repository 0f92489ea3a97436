import { weightOf, type ActiveJob } from './active-job.ts'
import type { Overrun } from '../attempts/overruns.ts'
import { nextWish, type Lane, type Slots, type Wish } from '../concurrency/handler-slots.ts'

/** Jobs in hand at most, those waiting for their settlement included. */
const maxJobs = 64

/**
 * With so many events in hand, those waiting for their settlement included, no more are fetched: what is read, what is
 * handled and what is written go on beside each other with twice what one fetch brings, and more is only memory.
 */
const maxEvents = 2000

export interface Room extends Wish {
  readonly jobs: number
}

/** The jobs that a worker has fetched and not yet settled. */
export interface JobsInHand extends Iterable<ActiveJob> {
  readonly size: number
  /** The events of those jobs, settled ones included. */
  readonly eventCount: number
  add: (job: ActiveJob) => void
  /** Takes an event of a job off what is left to do. Gives whether it was left. */
  finishEvent: (job: ActiveJob, eventId: string) => boolean
  /** Takes events of a job out of the count of those that wait for a slot, or puts them back. */
  setAside: (job: ActiveJob, count: number) => void
  /** A handler runs on although its event is settled: until it has ended, it keeps its slot. */
  outlive: (lane: Lane, overrun: Overrun, onEnded: () => void) => void
  /** Forgets a job and what is left of it. */
  drop: (job: ActiveJob) => void
  /** What may be fetched: so many events, and so many jobs; none when either is 0 or less. */
  room: () => Room
  /** Resolves when no handler runs, or at a moment of `performance.now()`. */
  untilIdle: (deadline: number) => Promise<void>
}

/** @param capacity - how many events may wait for a slot, or have one */
export function createJobsInHand(capacity: () => number, slots: Slots): JobsInHand {
  // Not a set: V8 keeps every table that a set ever had until the next full collection, with the jobs in it.
  let active: readonly ActiveJob[] = []
  const pending = { first: 0, later: 0 }
  const outliving = { first: 0, later: 0 }
  let eventCount = 0

  /** Jobs that only wait for their tenants: they keep no others away, up to a bound. */
  function aside(): { readonly jobs: number; readonly events: number } {
    let jobs = 0
    let events = 0
    for (const job of active) {
      if (job.asideCount === 0 || weightOf(job) > 0) continue
      jobs += 1
      events += job.claim.data.eventIds.length
    }
    return { jobs: Math.min(jobs, maxJobs), events: Math.min(events, maxEvents) }
  }

  /** Handlers, or transactions of handlers, that run. */
  function runningCount(): number {
    let count = outliving.first + outliving.later
    for (const job of active) count += job.running.size
    return count
  }

  return {
    [Symbol.iterator]: () => active.values(),
    get size() {
      return active.length
    },
    get eventCount() {
      return eventCount
    },
    add(job) {
      active = [...active, job]
      pending[job.lane] += weightOf(job)
      eventCount += job.claim.data.eventIds.length
    },
    finishEvent(job, eventId) {
      const weightBefore = weightOf(job)
      if (!job.left.delete(eventId)) return false
      pending[job.lane] -= weightBefore - weightOf(job)
      return true
    },
    setAside(job, count) {
      const weightBefore = weightOf(job)
      job.asideCount += count
      pending[job.lane] += weightOf(job) - weightBefore
    },
    outlive(lane, { ended }, onEnded) {
      outliving[lane] += 1
      void ended.then(() => {
        outliving[lane] -= 1
        onEnded()
      })
    },
    drop(job) {
      pending[job.lane] -= weightOf(job)
      job.left.clear()
      if (!active.includes(job)) return
      active = active.filter((other) => other !== job)
      eventCount -= job.claim.data.eventIds.length
    },
    room() {
      const held = { first: pending.first + outliving.first, later: pending.later + outliving.later }
      const wish = nextWish(capacity(), held, slots)
      if (wish.events <= 0) return { ...wish, jobs: 0 }
      const { jobs: asideJobs, events: asideEvents } = aside()
      return {
        ...wish,
        jobs: eventCount - asideEvents < maxEvents ? maxJobs - active.length + asideJobs : 0,
      }
    },
    async untilIdle(deadline) {
      while (runningCount() > 0 && performance.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, 5).unref())
    },
  }
}
