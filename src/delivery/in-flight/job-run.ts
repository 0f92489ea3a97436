import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import type { StoredEvent } from '../../events/envelope.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { NonRetryableError } from '../../foundation/errors.ts'
import type { AbortReason, AttemptResult, RunningAttempt } from '../attempts/attempt.ts'
import { logUndelivered, tellAttempt, toOutcome, type EventOutcome } from '../attempts/outcome.ts'
import type { AttemptKind } from '../concurrency/handler-slots.ts'
import { failedProbeDelaySeconds } from '../flow-control/pause-and-breaker.ts'
import type { Declined, JobClaim } from '../jobs/job-claim.ts'
import { isBatch, isInBackground, isOfKey, isRetry } from '../jobs/job.ts'
import { waitOf } from '../jobs/job-id.ts'
import { notifyProcesses } from '../jobs/notify-processes.ts'
import { splitJob } from '../jobs/split-job.ts'
import type { Settlement } from '../settlement/settlement.ts'
import { JobEvents } from './job-events.ts'
import type { InFlightJob } from './jobs-in-flight.ts'
import type { WorkerParts } from './worker-parts.ts'

/**
 * A batch starts events for this long. Those it has not started by then are requeued, behind the jobs that wait, so that slow
 * handlers do not make a tenant wait for a whole batch of another one.
 */
const sliceMs = 250

/** One claimed job in this process, from its fetch until it is settled. */
export class JobRun implements InFlightJob {
  readonly claim: JobClaim
  readonly kind: AttemptKind
  /** The number of the attempt that it makes at its events. */
  readonly attempt: number
  readonly isOfKey: boolean
  readonly ledgerId: number
  readonly startedAt = performance.now()
  readonly heartbeatSeconds: number
  readonly running = new Map<string, Pick<RunningAttempt, 'abort'>>()
  readonly remaining: Set<string>
  readonly events: JobEvents
  confirmedAt: number
  waitingForTenantCount = 0
  /** The tenants of the events that are counted for a tenant's limit, by event. */
  readonly admittedTenants = new Map<string, string>()
  /** How long what is requeued waits, and in which flow. */
  delaySeconds = 0
  flowKey: string | undefined
  /** Its first event is tried while the circuit breaker is open. */
  isProbe = false
  /** The error of an attempt that failed and does not count. */
  uncountedFailure: { readonly thrown: unknown } | undefined
  /** The ids of its events that only other code of the subscription covers: see coverage.ts. */
  uncovered: ReadonlySet<string> = new Set()
  /** How those are requeued, once that is known. */
  declined: Declined | undefined
  /** The failed attempt of a key's event whose handler still runs, while the key waits for it: see overrunning-handler.ts. */
  overrun: EventOutcome | undefined
  /** Resolves when that was written for other processes to see. */
  marking: Promise<void> | undefined
  /** Resolves when events that it has not started are in a job of their own. */
  requeueing: Promise<void> | undefined
  isCompleting = false
  readonly #worker: WorkerParts
  readonly #pendingOutcomes: EventOutcome[] = []
  /** The events that `requeueUnstarted` has taken out and not yet written. */
  #unstarted: readonly string[] = []
  #firstStartAt: number | undefined
  #isInterrupted = false
  #isClaimLost = false
  #isDone = false

  /** @param fetchedAt - it was fetched no earlier, in the time of `performance.now()` */
  constructor(claim: JobClaim, worker: WorkerParts, fetchedAt: number, heartbeatSeconds: number) {
    this.claim = claim
    this.kind = isRetry(claim) ? 'retry' : 'first'
    this.attempt = (claim.data.attempts ?? 0) + claim.retryCount + 1
    this.isOfKey = isOfKey(claim.data)
    this.ledgerId = claim.data.replay?.ledgerId ?? worker.context.subscriptionId
    this.heartbeatSeconds = heartbeatSeconds
    this.remaining = new Set(claim.data.eventIds)
    this.events = new JobEvents(this.attempt, claim.data.missCount ?? 0, async (ids) =>
      worker.settlements.retryUntilDone(async () => worker.events.load(ids)),
    )
    this.confirmedAt = fetchedAt
    this.#worker = worker
  }

  /** Another worker has it. */
  get isClaimLost(): boolean {
    return this.#isClaimLost
  }

  /** Out of this worker's hands. */
  get isDone(): boolean {
    return this.#isDone
  }

  /** Aborted by a shutdown, or because its claim may be another worker's: a failure from now on does not count. */
  get isInterrupted(): boolean {
    return this.#isInterrupted
  }

  /** Whether an event of it may be started now. */
  get mayStart(): boolean {
    const { signal, breaker } = this.#worker
    if (signal.isStopped || this.#isClaimLost || this.#isDone || this.#isInterrupted) return false
    return !breaker.isHalted || this.isProbe
  }

  /** How many handler slots it may take: the events of a key run one after the other. */
  get weight(): number {
    const count = Math.max(0, this.remaining.size - this.waitingForTenantCount)
    if (!this.isOfKey) return count
    return this.waitingForTenantCount > 0 ? 0 : Math.min(count, 1)
  }

  /** Whether a batch has started events for as long as it may. */
  get isSliceOver(): boolean {
    const startedAt = this.#firstStartAt
    return startedAt !== undefined && isBatch(this.claim.data) && performance.now() - startedAt > sliceMs
  }

  /** Whether this process can start none of the events that are left. */
  get isUncovered(): boolean {
    if (this.uncovered.size === 0 || this.remaining.size === 0) return false
    return [...this.remaining].slice(0, this.isOfKey ? 1 : undefined).every((id) => this.uncovered.has(id))
  }

  /** Whether one of the outcomes that are not yet written is a failure. */
  get hasFailed(): boolean {
    return this.#pendingOutcomes.some(({ delivered }) => !delivered)
  }

  get isRequeueingUnstarted(): boolean {
    return this.#unstarted.length > 0
  }

  startAttempt(event: StoredEvent, tx?: HandlerTransaction): RunningAttempt {
    this.#firstStartAt ??= performance.now()
    return this.#worker.startAttempt(event, this.attempt, this.claim.data.replay?.operationId, tx)
  }

  /** Whether a failed attempt does not count, so that its event is requeued as it came. Then that is noted. */
  discountFailure(thrown: unknown): boolean {
    if (!this.#isInterrupted && (!this.isProbe || thrown instanceof NonRetryableError)) return false
    this.uncountedFailure = { thrown }
    return true
  }

  /** The outcome of a handler's result, for the circuit breaker too. */
  judge(event: StoredEvent, result: AttemptResult): EventOutcome {
    const outcome = toOutcome(event, this.attempt, result)
    this.#worker.breaker.recordOutcome(outcome, event)
    return outcome
  }

  /** Logs and counts the outcome of an attempt. */
  record(outcome: EventOutcome): void {
    const { logger, subscription, subscriptionId, rollups, telemetry } = this.#worker.context
    logUndelivered(logger, subscription, outcome, this.events.loaded)
    this.#worker.metrics.record(outcome)
    const waitMs = this.claim.data.replay === undefined ? waitOf(outcome, this.claim.id) : undefined
    rollups.handled(subscriptionId, outcome, waitMs, this.events.loaded.tenantOf(outcome.eventId))
    // What is caught up was published long ago, before the subscription was there.
    const countedMs = isInBackground(this.claim) ? undefined : waitMs
    tellAttempt(telemetry.recorder, subscription.name, outcome, countedMs, this.events.loaded)
  }

  /** An event is over. An outcome is still to be written. */
  finish(eventId: string, outcome?: EventOutcome): void {
    const { jobs } = this.#worker
    const before = this.weight
    if (!this.remaining.delete(eventId)) return
    jobs.addWeight(this.kind, this.weight - before)
    if (this.admittedTenants.size > 0) this.#returnAdmission(eventId)
    if (outcome !== undefined) this.#pendingOutcomes.push(outcome)
    jobs.onCapacity()
  }

  /** So many more of its events, or fewer, wait for their tenant and not for a handler slot. */
  markWaitingForTenant(count: number): void {
    const { jobs } = this.#worker
    const before = this.weight
    this.waitingForTenantCount += count
    jobs.addWeight(this.kind, this.weight - before)
    if (count > 0) jobs.onCapacity()
  }

  /** Requeues events of a batch that were not started, in a job of their own. Those that run continue. */
  requeueUnstarted(): void {
    const { context, settlements, signal } = this.#worker
    const before = this.requeueing
    const unstarted = [...this.remaining].filter((id) => !this.running.has(id))
    this.#unstarted = [...this.#unstarted, ...unstarted]
    const split = async (): Promise<void> => {
      await before
      const ids = this.#unstarted
      if (ids.length === 0) return
      const isOurs = await settlements.retryUntilDone(async () => splitJob(context, this.claim, ids))
      this.#unstarted = []
      if (!isOurs) this.onClaimLost()
    }
    this.requeueing = split()
    for (const id of unstarted) this.finish(id)
    // A failure is met where the job is settled: then they are requeued with what is left of it.
    this.requeueing.then(
      () => signal.wake(),
      () => {},
    )
  }

  /** Requeues what is left of it as it came. Resolves when that is written, or given up. */
  async requeue(): Promise<void> {
    const { context, signal, requestPoll } = this.#worker
    const requeued = [...this.remaining, ...this.#unstarted]
    // Its attempt was over before; only its handler is not. With exactly-once, events before it may have to run again.
    if (this.overrun !== undefined && this.overrun.eventId === requeued[0])
      this.#pendingOutcomes.push(this.overrun)
    this.#isDone = true
    const { missDelaySeconds, missCount } = this.events
    this.delaySeconds = Math.max(this.delaySeconds, missDelaySeconds ?? 0)
    // Another event is tried next.
    if (this.uncountedFailure !== undefined && !this.#isInterrupted)
      this.delaySeconds = failedProbeDelaySeconds
    const { delaySeconds, flowKey, declined } = this
    if (missDelaySeconds !== undefined)
      context.logger.warn(
        { subscription: context.subscription.name, eventCount: requeued.length, delaySeconds },
        'events were not found in the log yet: they are retried',
      )
    await this.settle({ requeued, delaySeconds, missCount, flowKey, declined })
    // Which process can take them is not known: when a delay is over, only the database knows.
    if (delaySeconds > 0) requestPoll()
    else if (declined === undefined) signal.wake()
    else this.#announceDeclined()
  }

  /** Writes its last outcomes and ends it, with what is requeued of it. Resolves when that is written, or given up. */
  async settle(requeued: Omit<Settlement, 'claim' | 'outcomes' | 'done' | 'isMarked'> = {}): Promise<void> {
    const outcomes = this.#pendingOutcomes.splice(0)
    const isMarked = this.marking !== undefined
    await this.#worker.settlements.add({ claim: this.claim, outcomes, done: true, isMarked, ...requeued })
    this.release()
  }

  /** Writes the outcomes so far, where there are any, of a job that is not over. */
  settleEarly(): void {
    if (this.#isDone || this.remaining.size === 0 || this.#pendingOutcomes.length === 0) return
    const outcomes = this.#pendingOutcomes.splice(0)
    void this.#worker.settlements.add({ claim: this.claim, outcomes, done: false })
  }

  /** Forgets the job and what is left of it. */
  release(): void {
    const { jobs } = this.#worker
    this.#isDone = true
    jobs.addWeight(this.kind, -this.weight)
    this.remaining.clear()
    jobs.drop(this)
    for (const eventId of this.admittedTenants.keys()) this.#returnAdmission(eventId)
    jobs.onCapacity()
  }

  /** Aborts its handlers and starts none. A failure from now on does not count. */
  interrupt(reason: AbortReason): void {
    this.#isInterrupted = true
    this.#abort(reason)
  }

  onClaimLost(): void {
    if (this.#isDone) return
    this.#warn('another worker has taken a job over: its handlers are aborted')
    this.#isClaimLost = true
    this.#abort('claim lost')
    this.release()
  }

  /** What its handlers still do counts if no other worker has taken the job over when the database is back. */
  onClaimExpired(): void {
    this.#warn('the database was unreachable for as long as a claim lasts: handlers are aborted')
    this.interrupt('claim expired')
  }

  #abort(reason: AbortReason): void {
    for (const running of this.running.values()) running.abort(reason)
  }

  #warn(message: string): void {
    const { logger, subscription } = this.#worker.context
    logger.warn({ subscription: subscription.name, jobId: this.claim.id }, message)
  }

  #returnAdmission(eventId: string): void {
    const tenantId = this.admittedTenants.get(eventId)
    if (tenantId === undefined) return
    this.admittedTenants.delete(eventId)
    this.#worker.tenants?.onEventOver(tenantId)
  }

  #announceDeclined(): void {
    const { context, coverage } = this.#worker
    Promise.all([coverage.recordDeclined(), notifyProcesses(context)]).catch((error: unknown) =>
      context.logger.debug({ reason: reasonOf(error) }, 'jobs left to other code could not be recorded'),
    )
  }
}
