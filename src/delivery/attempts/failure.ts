import { describeError, type DescribedError } from '../../foundation/described-error.ts'

/** The failure of one attempt: readable, and bounded for any thrown value. */
export interface AttemptFailure extends DescribedError {
  /** The number of the attempt, starting at 1. */
  readonly attempt: number
  /** When it failed, by the clock of the process that ran it, ISO 8601. */
  readonly at: string
}

const maxKeptFailures = 10

/** Describes any value that a handler threw. */
export function describeFailure(attempt: number, thrown: unknown): AttemptFailure {
  return { attempt, at: new Date().toISOString(), ...describeError(thrown) }
}

/** The failures to keep: the first and the latest ones. */
export function keepFailures(failures: readonly AttemptFailure[]): readonly AttemptFailure[] {
  if (failures.length <= maxKeptFailures) return failures
  return [...failures.slice(0, 1), ...failures.slice(1 - maxKeptFailures)]
}
