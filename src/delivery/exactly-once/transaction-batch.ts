import type { PgBoss } from 'pg-boss'
import type { StoredEvent } from '../../events/envelope.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { Database } from '../../database/database.ts'
import { isKey } from '../in-flight/active-job.ts'
import type { RunningAttempt } from '../attempts/attempt.ts'
import type { LoadedEvents } from '../attempts/event-reader.ts'
import type { HandlerConnections } from './handler-connections.ts'
import type { Overrun, Overruns } from '../attempts/overruns.ts'
import type { Settler } from '../settlement/settlement-queue.ts'
import type { Lane, Slots } from '../concurrency/handler-slots.ts'
import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import type { TenantLimit } from '../in-flight/tenant-limit.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import type { EventOutcome } from '../attempts/outcome.ts'

/** A job of the worker, as far as it matters here. */
export interface HeldJob {
  readonly claim: JobClaim
  readonly lane: Lane
  readonly left: ReadonlySet<string>
  /** Its events, as they were read last. */
  readonly events: LoadedEvents
  readonly running: Map<string, Pick<RunningAttempt, 'abort'>>
  readonly cutShort: boolean
  readonly isProbe: boolean
  isMissing: boolean
  delaySeconds: number
  /** Why an attempt failed that does not count. */
  forgiven: { readonly thrown: unknown } | undefined
  /** Of a key: the failed attempt whose handler runs on, while the key waits for that. */
  overrun: EventOutcome | undefined
  /** Resolves when that has been written down for others to see. */
  readonly marking: Promise<void> | undefined
  readonly heartbeatSeconds: number
  /** When the claim was last known to be current, in the time of `performance.now()`. */
  readonly confirmedAt: number
  readonly lost: boolean
  readonly done: boolean
  /** Its completion is being committed: a heartbeat that misses it means nothing. */
  completing: boolean
}

/** What a worker lends to its transactions. */
export interface ExactlyOnceParts<J extends HeldJob> {
  readonly database: Database
  readonly boss: PgBoss
  readonly connections: HandlerConnections
  readonly subscription: Subscription
  readonly subscriptionId: number
  readonly logger: BusLogger
  readonly settler: Settler
  readonly slots: Slots
  readonly limit: TenantLimit | undefined
  /** How long handlers take. */
  readonly averageMs: () => number
  /** Takes events out of the count of those that wait for a slot, or puts them back. */
  readonly setAside: (job: J, count: number) => void
  readonly overruns: Overruns
  /** Counts a handler that runs on, until it has ended. */
  readonly outlives: (lane: Lane, overrun: Overrun) => void
  readonly startAttempt: (event: StoredEvent, attempt: number, tx: HandlerTransaction) => RunningAttempt
  /** Reads the events of the job again where they were read too long ago: see `refreshEvents`. */
  readonly refresh: (job: J) => Promise<void> | undefined
  /** Whether further events of the job may be begun. */
  readonly mayBegin: (job: J) => boolean
  /** With an outcome, that is still to be written. */
  readonly finishEvent: (job: J, eventId: string, outcome: EventOutcome | undefined) => void
  /** Called for every attempt that counts, with what is known of the event, for the log. */
  readonly noteAttempt: (outcome: EventOutcome, events: LoadedEvents) => void
  /** Called at once when a handler is done, whatever becomes of its transaction. */
  readonly judge: (outcome: EventOutcome, event: StoredEvent) => void
  readonly lose: (job: J) => void
  readonly onFailures: () => void
  /** Called after a commit that made jobs ready: the next ones of keys. */
  readonly onReady: () => Promise<void>
  /** Asks which jobs in hand are still this worker's. */
  readonly touch: () => Promise<void>
  /** The key of a job waits for a handler that ignores its signal. */
  readonly keyWaits: (job: J) => void
}

/** A job that is being worked on. */
export interface HeldWork<J> {
  readonly job: J
  readonly attempt: number
  /** To be run, together with others. */
  readonly pending: string[]
  /** To be run in a transaction of their own, because one they shared broke. */
  readonly alone: string[]
  /** Events whose connection was lost once already while they were the only one in the transaction. */
  readonly lostOnce: Set<string>
  /** How often an event, alone in its transaction, has lost against concurrent ones. */
  readonly lostRaces: Map<string, number>
  settleFailures: number
  transactionCount: number
  /** Lanes that wait for a tenant to be below its limit. */
  waitingLanes: number
  /** Of a key: an attempt that has failed, to be written together with what comes before its event. */
  failed: EventOutcome | undefined
  /** Of a key: an event is not over, so none behind it may be begun. */
  stopped: boolean
  completed: boolean
}

/** Puts events back to be run, together with others. Those of a key stand in its order. */
export function runAgain<J extends HeldJob>(work: HeldWork<J>, eventIds: readonly string[]): void {
  const { job, pending, alone } = work
  // Of a key those that run alone come before all others.
  if (isKey(job) && alone.length > 0) return runAlone(work, eventIds)
  pending.unshift(...eventIds)
  if (isKey(job)) sortAsPublished(job, pending)
}

/** Puts events back to be run in a transaction each. */
export function runAlone<J extends HeldJob>({ job, alone }: HeldWork<J>, eventIds: readonly string[]): void {
  alone.push(...eventIds)
  if (isKey(job)) sortAsPublished(job, alone)
}

function sortAsPublished({ claim }: HeldJob, list: string[]): void {
  const { eventIds } = claim.data
  list.sort((a, b) => eventIds.indexOf(a) - eventIds.indexOf(b))
}
