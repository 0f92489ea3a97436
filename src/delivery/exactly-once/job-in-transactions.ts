import type { EventOutcome } from '../attempts/outcome.ts'
import type { JobRun } from '../in-flight/job-run.ts'

/** A job whose events run in transactions, and what is known of those transactions. */
export class JobInTransactions {
  readonly job: JobRun
  /** To be run, several in one transaction. */
  readonly pending: string[]
  /** To be run in a transaction each, because one that they shared broke. */
  readonly isolated: string[] = []
  /** Events whose connection was lost once already while they were the only one in the transaction. */
  readonly lostOnce = new Set<string>()
  /** How often an event, the only one in its transaction, has lost against concurrent transactions. */
  readonly lostRaces = new Map<string, number>()
  settleFailureCount = 0
  transactionCount = 0
  /** How many transactions wait for a tenant to be below its limit. */
  waitingForTenantCount = 0
  /** Of a key: an attempt that has failed, to be written together with what comes before its event. */
  failed: EventOutcome | undefined
  /** Of a key: an event is not over, so none behind it may be started. */
  isStopped = false
  isCompleted = false

  constructor(job: JobRun, eventIds: Iterable<string>) {
    this.job = job
    this.pending = [...eventIds]
  }

  /** Whether one of the events that share transactions may be started. */
  get mayStartShared(): boolean {
    return this.pending.length > 0 && this.job.mayStart
  }

  /** Whether a further transaction is to be begun. */
  get mayStart(): boolean {
    if (this.isCompleted || this.isStopped) return false
    return this.mayStartShared || (this.isolated.length > 0 && this.job.mayStart)
  }

  /** Of a key: the event that comes next. */
  get next(): string | undefined {
    return this.isolated[0] ?? this.pending[0]
  }

  /** Puts events back, to share transactions again. Those of a key stay in its order. */
  runAgain(eventIds: readonly string[]): void {
    // Of a key, those that run isolated come before all others.
    if (this.job.isOfKey && this.isolated.length > 0) return this.runIsolated(eventIds)
    this.pending.unshift(...eventIds)
    this.#sort(this.pending)
  }

  /** Puts events back, to be run in a transaction each. */
  runIsolated(eventIds: readonly string[]): void {
    this.isolated.push(...eventIds)
    this.#sort(this.isolated)
  }

  #sort(eventIds: string[]): void {
    if (!this.job.isOfKey) return
    const published = this.job.claim.data.eventIds
    eventIds.sort((a, b) => published.indexOf(a) - published.indexOf(b))
  }
}
