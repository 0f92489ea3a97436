import type { HandlerSlots } from '../concurrency/handler-slots.ts'
import type { PauseAndBreaker } from '../flow-control/pause-and-breaker.ts'
import type { FetchSignal } from './fetch-signal.ts'
import type { FetchCapacity, InFlightJob, JobsInFlight } from './jobs-in-flight.ts'

/** How much a worker may fetch now. */
export interface WorkerCapacity {
  current: () => FetchCapacity
  /** Whether a job that arrives now would be taken at once. */
  isFree: () => boolean
  /** An event is over, or waits for something else than a slot: lets the fetcher know where there is capacity now. */
  freed: () => void
}

export function createCapacity<J extends InFlightJob>(
  jobs: JobsInFlight<J>,
  slots: HandlerSlots,
  breaker: PauseAndBreaker,
  signal: FetchSignal,
): WorkerCapacity {
  const capacity: WorkerCapacity = {
    current() {
      if (!breaker.isHalted) return jobs.capacity()
      // What is in flight is not to wait for jobs that are not fetched.
      slots.expect('retry', false)
      return { kind: 'any', eventCount: breaker.wantsProbe ? 1 : 0, jobCount: 1 }
    },
    isFree() {
      if (breaker.isHalted) return false
      const { eventCount, jobCount } = jobs.capacity()
      return eventCount > 0 && jobCount > 0
    },
    freed() {
      if (capacity.isFree()) signal.capacityFreed()
    },
  }
  return capacity
}
