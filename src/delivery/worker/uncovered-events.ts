import { eventNotCovered } from '../attempts/outcome.ts'
import type { JobRun } from '../in-flight/job-run.ts'
import type { WorkerState } from '../in-flight/worker-state.ts'

/**
 * Finds the events of a job that only other code of the subscription covers. Returns the others; of a key those up to the first that is
 * not covered.
 */
export async function findRunnable(
  { settlements, coverage }: WorkerState,
  job: JobRun,
): Promise<ReadonlySet<string>> {
  job.uncovered = await settlements.untilWritten(async () =>
    coverage.find(job.claim.data, job.remaining, job.events.loaded),
  )
  if (job.uncovered.size === 0) return job.remaining
  const left = [...job.remaining]
  const isCovered = (id: string): boolean => !job.uncovered.has(id)
  const firstUncovered = left.findIndex((id) => !isCovered(id))
  return new Set(job.isOfKey ? left.slice(0, firstUncovered) : left.filter(isCovered))
}

/**
 * Decides what happens to events that are not covered here, when nothing else is left of a job: they go back for other code, or fail
 * where no code has them any more. Resolves to whether one of a key has failed.
 */
export async function declineUncovered(
  { settlements, coverage }: WorkerState,
  job: JobRun,
): Promise<boolean> {
  const uncovered = job.isOfKey ? [...job.remaining].slice(0, 1) : [...job.remaining]
  const { isCoveredElsewhere, unwanted } = await settlements.untilWritten(async () =>
    coverage.judge(uncovered, job.events.loaded),
  )
  for (const eventId of unwanted) {
    const outcome = eventNotCovered(eventId, job.attempt)
    job.record(outcome)
    job.finish(eventId, outcome)
  }
  job.declined = { by: coverage.leave(job.claim.data), isLast: !isCoveredElsewhere }
  return job.isOfKey && unwanted.length > 0
}
