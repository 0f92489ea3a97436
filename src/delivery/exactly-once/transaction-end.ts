import { setTimeout as pause } from 'node:timers/promises'
import { toBusError } from '../../database/database-errors.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { DeliveryError } from '../../foundation/errors.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { describeFailure } from '../attempts/failure.ts'
import { failureOf, type EventOutcome } from '../attempts/outcome.ts'
import type { JobRun } from '../in-flight/job-run.ts'
import type { WorkerParts } from '../in-flight/worker-parts.ts'
import { isCurrent, JobWriter } from '../jobs/job-writer.ts'
import { isBatch } from '../jobs/job.ts'
import { readReceipts } from '../ledger/receipts.ts'
import type { HandlerConnections } from './handler-connections.ts'
import { isLostRace } from './handler-transaction.ts'
import type { JobInTransactions } from './job-in-transactions.ts'
import type { BrokenStep } from './run-event.ts'
import type { TransactionRun } from './transaction-run.ts'
import { AlreadyDelivered, ClaimLost, KeyLocked, type Written } from '../settlement/settlement.ts'
import { tellSettled } from '../settlement/tell-settled.ts'

/** How often an event may lose against concurrent transactions, the only one in its own, before that counts as an attempt. */
const maxLostRaces = 10
const maxRacePauseMs = 300

/**
 * Events of a key whose row another session holds are requeued for this long: their transaction must not hold its own locks
 * meanwhile.
 */
const lockedKeyDelaySeconds = 1

/** Ends the transactions of handlers. */
export interface TransactionEnd {
  /** Commits what a transaction has done, with its receipts. */
  readonly settle: (run: TransactionRun) => Promise<void>
  /** Throws a transaction away, and decides where its events continue. */
  readonly abandon: (run: TransactionRun, step: BrokenStep) => Promise<void>
  /** Ends the sessions in which transactions with such names are open. */
  readonly endTransactions: (namePrefix: string) => Promise<void>
}

/**
 * An event is only blamed for what is certainly its own: what breaks a transaction that several events share is not an attempt of any
 * of them; they run again, each in its own transaction.
 */
export function createTransactionEnd(worker: WorkerParts, connections: HandlerConnections): TransactionEnd {
  const { context, settlements, outcomes: writer, signal } = worker
  const { database, subscription, logger } = context

  async function settle({ work, transaction, eventIds, outcomes }: TransactionRun): Promise<void> {
    const { job } = work
    const [only] = outcomes
    if (only === undefined) return transaction.rollback()
    if (!only.delivered && !isBatch(job.claim.data)) {
      // There is nothing to keep. The job's own settlement writes that a single event, or the first of a key, has failed.
      await transaction.rollback()
      work.isStopped = true
      job.record(only)
      job.finish(only.eventId, only)
      return
    }
    if (job.isDone) return transaction.rollback()
    const done = job.remaining.size === outcomes.length || endsJob(job, outcomes)
    let isCommitting = false
    let written: Written
    job.isCompleting = done
    try {
      written = await tellSettled(context, [{ outcomes }], async () => {
        await transaction.beginSettling()
        const all = await writer.writeInto(transaction.client, { claim: job.claim, outcomes, done })
        isCommitting = true
        await transaction.commit()
        return all
      })
      await database.faultPoint?.(
        done && job.isOfKey ? 'exactly-once-ordered.committed' : 'exactly-once.committed',
      )
      work.isCompleted = done
      work.settleFailureCount = 0
      writer.logWritten(written)
      if (written.readyCount > 0) await signal.jobsReady()
    } catch (error) {
      await transaction.rollback()
      await afterFailedSettling(work, eventIds, error, isCommitting)
      return
    } finally {
      job.isCompleting = false
    }
    finish(job, outcomes)
  }

  function finish(job: JobRun, outcomes: readonly EventOutcome[]): void {
    for (const outcome of outcomes) {
      job.record(outcome)
      job.finish(outcome.eventId)
    }
    if (outcomes.some(({ delivered }) => !delivered)) worker.requestPoll()
  }

  async function afterFailedSettling(
    work: JobInTransactions,
    eventIds: readonly string[],
    thrown: unknown,
    isCommitting: boolean,
  ): Promise<void> {
    if (thrown instanceof ClaimLost) return work.job.onClaimLost()
    if (thrown instanceof KeyLocked) return postponeLockedKey(work, eventIds.length)
    const undelivered = await withoutReceipt(work, eventIds)
    if (thrown instanceof AlreadyDelivered) return work.runAgain(undelivered)
    const error = toBusError(thrown)
    const { sqlState } = error as { sqlState?: unknown }
    const only = eventIds.length === 1 ? undelivered[0] : undefined
    if (only !== undefined && isLostRace(sqlState)) return afterLostRace(work, only, error)
    // A server that takes no writes could not store a failure either.
    const isAway = error.code === 'BUS_DATABASE_UNAVAILABLE' || sqlState === '25006'
    const isRefused = !isAway && (isCommitting || error.retryable)
    if (isRefused && only !== undefined) return recordFailure(work, only, { thrown: error, final: false })
    work.runIsolated(undelivered)
    if (isRefused) return
    const delayMs = failureDelayMs(work.settleFailureCount)
    work.settleFailureCount += 1
    logger.warn(
      { subscription: subscription.name, reason: reasonOf(error), delayMs },
      'a transaction of handlers could not be committed: its events run again',
    )
    await pause(delayMs, undefined, { ref: false })
  }

  function postponeLockedKey(work: JobInTransactions, eventCount: number): void {
    work.isStopped = true
    work.job.delaySeconds = Math.max(work.job.delaySeconds, lockedKeyDelaySeconds)
    logger.warn(
      { subscription: subscription.name, eventCount, delaySeconds: lockedKeyDelaySeconds },
      'the row of a key is locked by another transaction: its events run again later',
    )
  }

  async function abandon({ work, transaction, eventIds }: TransactionRun, step: BrokenStep): Promise<void> {
    if (step.kind === 'transaction-broken') await transaction.rollback()
    else {
      transaction.destroy()
      // A statement that still runs would keep its locks until it is done.
      await endTransactions(transaction.name)
    }
    if (step.kind === 'abandoned') return
    const undelivered = await withoutReceipt(work, eventIds)
    const last = eventIds.at(-1) ?? ''
    if (step.kind === 'failed') {
      work.runAgain(undelivered.filter((id) => id !== last))
      if (undelivered.includes(last)) await recordFailure(work, last, step)
    } else if (step.lostRace && eventIds.length === 1) {
      if (undelivered.length > 0) await afterLostRace(work, last, step.thrown)
    } else if (eventIds.length > 1 || !work.lostOnce.has(last)) {
      if (eventIds.length === 1) work.lostOnce.add(last)
      logger.warn(
        {
          subscription: subscription.name,
          reason: describeFailure(work.job.attempt, step.thrown).message,
          eventCount: undelivered.length,
        },
        'a transaction of handlers failed: its events run again one by one',
      )
      work.runIsolated(undelivered)
    } else if (undelivered.length > 0) await recordFailure(work, last, { thrown: step.thrown, final: false })
  }

  /**
   * An event that had a transaction to itself lost against a concurrent one. That says nothing about the event, and is not an attempt;
   * but only so often, because a handler may lose each time.
   */
  async function afterLostRace(work: JobInTransactions, eventId: string, thrown: unknown): Promise<void> {
    const lostCount = (work.lostRaces.get(eventId) ?? 0) + 1
    work.lostRaces.set(eventId, lostCount)
    if (lostCount < maxLostRaces) {
      work.runIsolated([eventId])
      // The other transaction has time to finish, and they do not meet again at the same pace.
      const delayMs = Math.min(maxRacePauseMs, 5 * 2 ** lostCount) * (0.5 + Math.random())
      await pause(delayMs, undefined, { ref: false })
      return
    }
    const { message } = describeFailure(work.job.attempt, thrown)
    const conflict = new DeliveryError(
      'BUS_HANDLER_TRANSACTION_CONFLICT',
      `The transaction of the handler lost against concurrent ones ${lostCount} times in a row: ${message}`,
      { cause: thrown },
    )
    await recordFailure(work, eventId, { thrown: conflict, final: false })
  }

  /** The events that are not delivered; none when the job is another worker's. */
  async function withoutReceipt(
    { job }: JobInTransactions,
    eventIds: readonly string[],
  ): Promise<readonly string[]> {
    const delivered = await settlements.retryUntilDone(async () =>
      readReceipts(database, job.ledgerId, eventIds),
    )
    for (const id of delivered) job.finish(id)
    const undelivered = eventIds.filter((id) => !delivered.has(id))
    if (undelivered.length === 0 || job.isDone) return []
    if (await settlements.retryUntilDone(async () => isCurrent(database, context, job.claim)))
      return undelivered
    job.onClaimLost()
    return []
  }

  /** Counts an attempt whose transaction is gone, in a transaction of the bus; of a key, when what comes before it is delivered. */
  async function recordFailure(
    work: JobInTransactions,
    eventId: string,
    { thrown, final, durationMs }: { thrown: unknown; final: boolean; durationMs?: number | undefined },
  ): Promise<void> {
    const { job } = work
    if (job.isDone) return
    if (job.discountFailure(thrown)) {
      work.isStopped = job.isOfKey
      return
    }
    const outcome: EventOutcome = {
      ...{ eventId, tenantId: job.events.tenantOf(eventId), type: job.events.loaded.typeOf(eventId) },
      ...{ delivered: false, final, durationMs },
      ...failureOf(job.attempt, thrown),
    }
    if (job.isOfKey) {
      work.failed = outcome
      work.runAgain([eventId])
    } else if (isBatch(job.claim.data)) await writeFailure(job, outcome)
    else {
      job.record(outcome)
      job.finish(eventId, outcome)
    }
  }

  async function writeFailure(job: JobRun, outcome: EventOutcome): Promise<void> {
    const settlement = { claim: job.claim, outcomes: [outcome], done: false }
    const written = await settlements.retryUntilDone(async () =>
      tellSettled(context, [settlement], async () =>
        database.transaction(async (client) => {
          if (!(await new JobWriter(client, context).lock(job.claim))) return undefined
          return writer.writeInto(client, settlement)
        }),
      ),
    )
    if (written === undefined) return job.onClaimLost()
    writer.logWritten(written)
    finish(job, [outcome])
  }

  /** Not being allowed to, or a database that is away, does no harm: the server ends them by itself, later. */
  async function endTransactions(namePrefix: string): Promise<void> {
    await connections.endTransactions(namePrefix).catch((error: unknown) => {
      logger.warn(
        { subscription: subscription.name, reason: reasonOf(error) },
        'a transaction of handlers could not be ended',
      )
    })
  }

  return { settle, abandon, endTransactions }
}

/** A job of a key ends where an event has failed: those behind it are for the key's next job. */
function endsJob(job: JobRun, outcomes: readonly EventOutcome[]): boolean {
  return job.isOfKey && outcomes.at(-1)?.delivered === false
}
