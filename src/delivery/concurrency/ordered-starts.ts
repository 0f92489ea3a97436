import type { Gate } from './semaphore.ts'
import type { Overrun } from '../attempts/overruns.ts'

/** The events of the jobs of a worker, one job after the other, as many at a time as the gate lets in. */
export interface Line {
  /**
   * Begins the events of a job in their order, after those of the jobs before it, each as soon as there is a place for it.
   *
   * @param eventIds - may shrink meanwhile: what is gone is not begun, but for the one that is waiting for a place
   * @param begin - gives undefined where the event is over already: then nobody waits, and nothing is kept for it. Resolves to the
   *   overrun of a handler that runs on: its event is over, but its place is taken until it has ended
   * @returns once all of them are over
   */
  run: (
    eventIds: Iterable<string>,
    begin: (eventId: string) => Promise<Overrun | void> | undefined,
  ) => Promise<void>
}

export function createLine(gate: Gate): Line {
  let last: Promise<void> = Promise.resolve()
  return {
    async run(eventIds, begin) {
      const before = last
      const begun = Promise.withResolvers<void>()
      last = begun.promise
      const running: Promise<void>[] = []
      let failure: { readonly error: unknown } | undefined
      const fail = (error: unknown): void => void (failure ??= { error })
      const isOver = (overrun: Overrun | void): void => {
        if (!overrun) gate.leave()
        else void overrun.ended.then(() => gate.leave())
      }
      const hasFailed = (error: unknown): void => {
        fail(error)
        gate.leave()
      }
      await before
      try {
        for (const eventId of eventIds) {
          if (!gate.tryEnter()) await gate.enter()
          let work: Promise<Overrun | void> | undefined
          try {
            work = begin(eventId)
          } catch (error) {
            fail(error)
          }
          if (work === undefined) gate.leave()
          else running.push(work.then(isOver, hasFailed))
        }
      } finally {
        begun.resolve()
      }
      await Promise.all(running)
      if (failure !== undefined) throw failure.error
    },
  }
}
