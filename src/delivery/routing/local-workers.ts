import type { JobWithMetadata } from 'pg-boss'
import type { JobData } from '../jobs/job.ts'

/** The workers of this process, as the router uses them. */
export interface LocalWorkers {
  /** The subscriptions that have a worker. */
  readonly subscriptionIds: Iterable<number>
  /**
   * Whether this process has a worker for a subscription that covers these types and would start a job with such events
   * immediately.
   *
   * @param declarations - the declarations whose predicate the events satisfy, if there are predicates
   */
  isFree: (
    subscriptionId: number,
    types: readonly string[],
    declarations: readonly number[] | undefined,
  ) => boolean
  /** Notifies the worker of a subscription, if there is one, of new jobs. */
  wake: (subscriptionId: number) => void
  /** Passes jobs to a worker on whose behalf they were fetched. */
  adopt: (subscriptionId: number, jobs: readonly JobWithMetadata<JobData>[], fetchedAt: number) => void
  /** Starts to read events that workers of this process are about to deliver. */
  prefetch: (eventIds: readonly string[]) => void
}
