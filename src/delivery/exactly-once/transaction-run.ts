import type { AbortReason, RunningAttempt, Overrun } from '../attempts/attempt.ts'
import type { EventOutcome } from '../attempts/outcome.ts'
import type { EventTransaction } from './handler-transaction.ts'
import type { JobInTransactions } from './job-in-transactions.ts'
import type { TakenEvent, TenantSlots } from './tenant-slots.ts'

/**
 * Most events in one transaction. Each that writes is a subtransaction, and PostgreSQL keeps 64 of them in memory: with more, every
 * reader of the rows has to look them up on disk.
 */
const maxEvents = 50

/** A transaction that is older takes no further event: its locks, and what an error in it affects, stay few. */
const maxAgeMs = 500

/** How long a handler that was aborted may take to stop. */
const abortedHandlerMs = 500

/** One transaction in which events of a job run, one after the other. */
export class TransactionRun {
  readonly work: JobInTransactions
  readonly transaction: EventTransaction
  /** The events that it has run, the current one last. */
  readonly eventIds: string[] = []
  readonly outcomes: EventOutcome[] = []
  /** The event that runs next, once it was taken. */
  next: TakenEvent | undefined
  /** The reason why it was aborted. */
  aborted: AbortReason | undefined
  /** Set where a handler still runs after its attempt: the transaction keeps its slot until that has ended, and starts nothing more. */
  overrun: Overrun | undefined
  /** Resolves when a handler that still runs is not waited for any longer. */
  readonly givenUp: Promise<undefined>
  readonly #tenants: TenantSlots
  readonly #isIsolated: boolean
  readonly #beganAt = performance.now()
  readonly #giveUp: (value: undefined) => void
  #current: RunningAttempt | undefined

  constructor(
    work: JobInTransactions,
    transaction: EventTransaction,
    tenants: TenantSlots,
    isIsolated: boolean,
  ) {
    this.work = work
    this.transaction = transaction
    this.#tenants = tenants
    this.#isIsolated = isIsolated
    const { promise, resolve } = Promise.withResolvers<undefined>()
    this.givenUp = promise
    this.#giveUp = resolve
    work.job.running.set(transaction.name, { abort: (reason) => this.#abort(reason) })
  }

  /** The handler that runs in it now. */
  set current(running: RunningAttempt | undefined) {
    this.#current = running
    if (this.aborted !== undefined) running?.abort(this.aborted)
  }

  /** Takes the event that runs next, unless the transaction is full or old. Returns whether there is one. */
  takeNext(): boolean {
    const mayGrow =
      !this.#isIsolated &&
      this.eventIds.length < maxEvents &&
      performance.now() - this.#beganAt < maxAgeMs &&
      this.work.mayStartShared
    this.next = mayGrow ? this.#tenants.take(this.work, this.work.pending) : undefined
    return this.next !== undefined
  }

  /** Puts the event that was to run next back. */
  putNextBack(): void {
    if (this.next === undefined) return
    this.work.pending.unshift(this.next.eventId)
    this.#tenants.putBack(this.next)
    this.next = undefined
  }

  close(): void {
    this.work.job.running.delete(this.transaction.name)
  }

  #abort(reason: AbortReason): void {
    this.aborted = reason
    this.#current?.abort(reason)
    if (reason === 'claim lost') this.#giveUp(undefined)
    else setTimeout(this.#giveUp, abortedHandlerMs, undefined).unref()
  }
}
