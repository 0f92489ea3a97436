import { createSemaphore } from '../concurrency/semaphore.ts'
import type { JobData } from '../jobs/job.ts'

/**
 * Finds the event that kills its process. Events that were in flight too often when a process died are suspects: of all suspects of a
 * process, in whatever subscription, one runs at a time. Before it runs, its job is marked. If the process dies then, the next one
 * finds the mark: this event has failed an attempt, and the events that were in flight beside it have not.
 */
export interface Quarantine {
  /** Runs a suspect once no other suspect runs and no job of a lost worker is being recovered. */
  runIsolated: (run: () => Promise<void>) => Promise<void>
  /** Recovers a job of a lost worker. */
  recover: (work: () => Promise<void>) => Promise<void>
}

/** One for all workers of a process. */
export function createQuarantine(): Quarantine {
  const turns = createSemaphore(1)
  const recovering = new Set<Promise<void>>()
  return {
    async runIsolated(run) {
      if (!turns.tryAcquire()) await turns.acquire()
      try {
        while (recovering.size > 0) await Promise.allSettled(recovering)
        await run()
      } finally {
        turns.release()
      }
    },
    async recover(work) {
      const working = work()
      recovering.add(working)
      try {
        await working
      } finally {
        recovering.delete(working)
      }
    },
  }
}

/**
 * An event may be in flight this often when its process dies. From then on it is a suspect, and runs while no other suspect of the
 * process does. One loss would do, but then all that a killed process had in flight would run one by one.
 */
const lossesOfSuspect = 2

/** Whether an event was in flight so often when its process died that it may be the cause. */
export function isSuspect({ losses = 0 }: JobData): boolean {
  return losses >= lossesOfSuspect
}
