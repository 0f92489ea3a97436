import type { Semaphore } from './semaphore.ts'

/** A handler that still runs after its attempt is over. */
interface StillRunning {
  readonly ended: Promise<void>
}

/** Starts the events of a worker's jobs, one job after the other, as many at a time as there are permits. */
export interface OrderedStarts {
  /**
   * Starts the events of a job in their order, after those of the jobs before it, each as soon as a permit is free.
   *
   * @param eventIds - may shrink meanwhile: an event that is gone is not started, except one that waits for a permit already
   * @param start - returns undefined where the event is over already. Resolves to the handler that still runs, if one does: its event
   *   is over, but its permit is taken until it has ended
   * @returns once all of them are over
   */
  run: (
    eventIds: Iterable<string>,
    start: (eventId: string) => Promise<StillRunning | void> | undefined,
  ) => Promise<void>
}

export function createOrderedStarts(permits: Semaphore): OrderedStarts {
  let last: Promise<void> = Promise.resolve()
  return {
    async run(eventIds, start) {
      const before = last
      const allStarted = Promise.withResolvers<void>()
      last = allStarted.promise
      const running: Promise<void>[] = []
      let failure: { readonly error: unknown } | undefined
      const fail = (error: unknown): void => void (failure ??= { error })
      const onOver = (stillRunning: StillRunning | void): void => {
        if (!stillRunning) permits.release()
        else void stillRunning.ended.then(() => permits.release())
      }
      const onFailed = (error: unknown): void => {
        fail(error)
        permits.release()
      }
      await before
      try {
        for (const eventId of eventIds) {
          if (!permits.tryAcquire()) await permits.acquire()
          let work: Promise<StillRunning | void> | undefined
          try {
            work = start(eventId)
          } catch (error) {
            fail(error)
          }
          if (work === undefined) permits.release()
          else running.push(work.then(onOver, onFailed))
        }
      } finally {
        allStarted.resolve()
      }
      await Promise.all(running)
      if (failure !== undefined) throw failure.error
    },
  }
}
