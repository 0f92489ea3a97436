import type { JobRun } from './job-run.ts'
import type { JobClaim } from '../jobs/job-claim.ts'

/** How the handlers of a subscription run: with a transaction of their own, or without. */
export interface HandlerMode {
  /** Runs events of a job. Resolves to whether one of them has failed, so that those of a key behind it wait. */
  readonly run: (job: JobRun, eventIds: Iterable<string>) => Promise<boolean>
  /** Called before a job is run whose worker before may still run. */
  readonly prepare: (claim: JobClaim) => Promise<void>
}
