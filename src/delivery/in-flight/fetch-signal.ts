import { notifyProcesses } from '../jobs/notify-processes.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'

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
