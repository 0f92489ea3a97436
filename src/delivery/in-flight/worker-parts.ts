import type { RunningAttempt, Overruns } from '../attempts/attempt.ts'
import type { EventReader } from '../attempts/event-reader.ts'
import type { HandlerMetrics } from '../attempts/outcome.ts'
import type { HandlerSlots } from '../concurrency/handler-slots.ts'
import type { StoredEvent } from '../../events/envelope.ts'
import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import type { PauseAndBreaker } from '../flow-control/pause-and-breaker.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import type { Coverage } from '../registry/coverage.ts'
import type { OutcomeWriter } from '../settlement/outcome-writer.ts'
import type { SettlementQueue } from '../settlement/settlement-queue.ts'
import type { FetchSignal, InFlightJob, JobsInFlight } from './jobs-in-flight.ts'
import type { Heartbeat } from './heartbeat.ts'
import type { TenantAdmission } from './tenant-limit.ts'

/** The parts of one subscription's worker, which its jobs work with. */
export interface WorkerParts {
  readonly context: SubscriptionContext
  readonly events: EventReader
  readonly coverage: Coverage
  /** Starts attempts at events. */
  readonly startAttempt: (
    event: StoredEvent,
    attempt: number,
    replayId: string | undefined,
    tx?: HandlerTransaction,
  ) => RunningAttempt
  readonly slots: HandlerSlots
  /** Where the subscription has a limit for each tenant. */
  readonly tenants: TenantAdmission | undefined
  readonly jobs: JobsInFlight<InFlightJob>
  readonly breaker: PauseAndBreaker
  readonly signal: FetchSignal
  readonly heartbeat: Heartbeat
  readonly outcomes: OutcomeWriter
  readonly settlements: SettlementQueue
  readonly metrics: HandlerMetrics
  readonly overruns: Overruns
  /** Requests a poll: retries were written whose due time only the database knows. */
  readonly requestPoll: () => void
}
