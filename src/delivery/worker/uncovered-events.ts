import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { Database } from '../../database/database.ts'
import { isKey, type ActiveJob } from '../in-flight/active-job.ts'
import type { Coverage } from '../registry/coverage.ts'
import { eventNotCovered, type EventOutcome } from '../attempts/outcome.ts'
import { wakeOthers } from './write-settlements.ts'
import type { Settler } from '../settlement/settlement-queue.ts'

/** What a worker does with events that only other code of its subscription covers. */
export interface UncoveredEvents {
  /** Finds them in a job. Gives the others; of a key those up to the first that is not covered. */
  readonly split: (job: ActiveJob) => Promise<ReadonlySet<string>>
  /**
   * Decides what becomes of them when nothing else is left of a job: they go back for other code, or, where none has them any more,
   * they have failed. Gives whether one of a key has failed.
   */
  readonly leave: (job: ActiveJob, attempt: number) => Promise<boolean>
  /** Tells others of what was put back. */
  readonly noteLeft: () => void
}

export interface UncoveredEventsParts {
  readonly database: Database
  readonly subscriptionId: number
  readonly coverage: Coverage
  readonly settler: Settler
  readonly logger: BusLogger
  readonly fail: (job: ActiveJob, eventId: string, outcome: EventOutcome) => void
}

export function handleUncovered(parts: UncoveredEventsParts): UncoveredEvents {
  const { database, subscriptionId, coverage, settler, logger } = parts
  return {
    async split(job) {
      job.uncovered = await settler.untilWritten(async () =>
        coverage.find(job.claim.data, job.left, job.events),
      )
      if (job.uncovered.size === 0) return job.left
      const left = [...job.left]
      const isCovered = (id: string): boolean => !job.uncovered.has(id)
      const firstUncovered = left.findIndex((id) => !isCovered(id))
      return new Set(isKey(job) ? left.slice(0, firstUncovered) : left.filter(isCovered))
    },
    async leave(job, attempt) {
      const uncovered = isKey(job) ? [...job.left].slice(0, 1) : [...job.left]
      const { isCoveredElsewhere, unwanted } = await settler.untilWritten(async () =>
        coverage.judge(uncovered, job.events),
      )
      for (const eventId of unwanted) parts.fail(job, eventId, eventNotCovered(eventId, attempt))
      job.leftToOthers = { by: coverage.leave(job.claim.data), isLast: !isCoveredElsewhere }
      return isKey(job) && unwanted.length > 0
    },
    noteLeft() {
      Promise.all([coverage.noteLeft(), wakeOthers(database, subscriptionId, logger)]).catch(
        (error: unknown) =>
          logger.debug({ reason: reasonOf(error) }, 'jobs left to other code could not be recorded'),
      )
    },
  }
}
