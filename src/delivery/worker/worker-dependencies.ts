import type { JobWithMetadata } from 'pg-boss'
import type { EventCatalogue } from '../../events/catalogue.ts'
import type { LoopProgress } from '../../foundation/loop-progress.ts'
import type { HandlerPublishing } from '../attempts/context-publisher.ts'
import type { EventReader } from '../attempts/event-reader.ts'
import type { Overruns } from '../attempts/attempt.ts'
import type { HandlerConnections } from '../exactly-once/handler-connections.ts'
import type { SubscriptionState } from '../flow-control/subscription-state.ts'
import type { Quarantine } from '../in-flight/quarantine.ts'
import type { JobData } from '../jobs/job.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import type { Coverage } from '../registry/coverage.ts'

/** What a worker needs from its bus. */
export interface WorkerDependencies {
  readonly context: SubscriptionContext
  readonly catalogue: EventCatalogue
  readonly events: EventReader
  readonly publishing: HandlerPublishing
  readonly quarantine: Quarantine
  /** The part of the subscription that the code of this process covers. */
  readonly coverage: Coverage
  /** Paused or not, and its circuit breaker, when the worker starts. */
  readonly state: SubscriptionState
  /** For a subscription in the mode exactly-once. */
  readonly connections: HandlerConnections | undefined
  /** Called after retries were written whose due time only the database knows. */
  readonly requestPoll: () => void
  /** Called with what the database says of the subscription, whenever it was asked. */
  readonly onState: (state: SubscriptionState) => void
}

/** Runs the handler of one subscription in this process. */
export interface Worker {
  readonly subscriptionId: number
  readonly name: string
  readonly ordered: boolean
  readonly overruns: Pick<Overruns, 'count'>
  /** Events of the jobs that it has fetched and not yet settled. */
  readonly inFlightCount: number
  /** Of the loop that fetches its jobs. */
  readonly progress: LoopProgress
  /** Whether a job that arrives now, with events of these types, would be fetched at once, and is covered by the code here. */
  isFree: (types: readonly string[], declarations: readonly number[] | undefined) => boolean
  /** Jobs may be ready. */
  wake: () => void
  /** Takes what the database said at a moment of `performance.now()`. */
  applyState: (state: SubscriptionState, readAt: number) => void
  /** Takes jobs that were fetched on its behalf. */
  adopt: (jobs: readonly JobWithMetadata<JobData>[], fetchedAt: number) => void
  /** Continues keys whose job ended without its worker: after its last attempt, or by hand. */
  recoverKeys: () => Promise<void>
  /**
   * Starts nothing new, waits for running handlers up to the grace period, aborts the signals of the rest, and puts what was not
   * finished back, with no attempt counted.
   *
   * @param relayStopped - until then, jobs may still be passed to it
   */
  stop: (graceMs: number, relayStopped: Promise<void>) => Promise<void>
}
