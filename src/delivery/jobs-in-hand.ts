import { weightOf, type ActiveJob } from './active-job.ts'

/** Jobs in hand at most, those waiting for their settlement included. */
const maxJobs = 64

/**
 * With so many events in hand, those waiting for their settlement included, no more are fetched: what is read, what is
 * handled and what is written go on beside each other with twice what one fetch brings, and more is only memory.
 */
const maxEvents = 2000

/** The jobs that a worker has fetched and not yet settled. */
export interface JobsInHand extends Iterable<ActiveJob> {
  readonly size: number
  add: (job: ActiveJob) => void
  /** Takes an event of a job off what is left to do. Gives whether it was left. */
  finishEvent: (job: ActiveJob, eventId: string) => boolean
  /** Takes events of a job out of the count of those that wait for a slot, or puts them back. */
  setAside: (job: ActiveJob, count: number) => void
  /** So many more handlers, or fewer, run on although their events are settled: they keep their slots. */
  outlive: (count: number) => void
  /** Forgets a job and what is left of it. */
  drop: (job: ActiveJob) => void
  /** How many events, and how many jobs, may be fetched; none when either is 0 or less. */
  room: () => { readonly events: number; readonly jobs: number }
  /** Resolves when no handler runs, or at a moment of `performance.now()`. */
  untilIdle: (deadline: number) => Promise<void>
}

/** @param capacity - how many events may wait for a slot, or have one */
export function createJobsInHand(capacity: () => number): JobsInHand {
  // Not a set: V8 keeps every table that a set ever had until the next full collection, with the jobs in it.
  let active: readonly ActiveJob[] = []
  let pendingCount = 0
  let eventCount = 0
  let outlivingCount = 0

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
    let count = outlivingCount
    for (const job of active) count += job.running.size
    return count
  }

  return {
    [Symbol.iterator]: () => active.values(),
    get size() {
      return active.length
    },
    add(job) {
      active = [...active, job]
      pendingCount += weightOf(job)
      eventCount += job.claim.data.eventIds.length
    },
    finishEvent(job, eventId) {
      const weightBefore = weightOf(job)
      if (!job.left.delete(eventId)) return false
      pendingCount -= weightBefore - weightOf(job)
      return true
    },
    setAside(job, count) {
      const weightBefore = weightOf(job)
      job.asideCount += count
      pendingCount += weightOf(job) - weightBefore
    },
    outlive(count) {
      outlivingCount += count
    },
    drop(job) {
      pendingCount -= weightOf(job)
      job.left.clear()
      if (!active.includes(job)) return
      active = active.filter((other) => other !== job)
      eventCount -= job.claim.data.eventIds.length
    },
    room() {
      const events = capacity() - pendingCount - outlivingCount
      if (events <= 0) return { events, jobs: 0 }
      const { jobs: asideJobs, events: asideEvents } = aside()
      return {
        events,
        jobs: eventCount - asideEvents < maxEvents ? maxJobs - active.length + asideJobs : 0,
      }
    },
    async untilIdle(deadline) {
      while (runningCount() > 0 && performance.now() < deadline)
        await new Promise((resolve) => setTimeout(resolve, 5))
    },
  }
}
