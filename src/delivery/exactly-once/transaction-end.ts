import { setTimeout as pause } from 'node:timers/promises'
import { DeliveryError } from '../../foundation/errors.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { toBusError } from '../../database/database-errors.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { forgive, isKey } from '../in-flight/active-job.ts'
import type { EventStep } from './event-step.ts'
import { describeFailure } from '../attempts/failure.ts'
import {
  AlreadyDelivered,
  ClaimLost,
  holdsClaim,
  KeyLocked,
  protocolOf,
  settleInTransaction,
} from './settle-in-transaction.ts'
import { isLostRace, type EventTransaction } from './handler-transaction.ts'
import {
  runAgain,
  runAlone,
  type ExactlyOnceParts,
  type HeldJob,
  type HeldWork,
} from './transaction-batch.ts'
import { isBatch } from '../jobs/job.ts'
import { readReceipts } from '../settlement/receipts.ts'
import type { EventOutcome } from '../attempts/outcome.ts'

/** How often an event may lose against concurrent transactions, alone in its own, before that counts as an attempt. */
const maxLostRaces = 10
const maxRacePauseMs = 300

/** Events of a key whose row somebody else holds go back for so long: their transaction must not hold its own locks meanwhile. */
const lockedKeyDelaySeconds = 1

/** How a transaction of handlers ends. */
export interface TransactionEnd<J> {
  readonly settle: (
    work: HeldWork<J>,
    transaction: EventTransaction,
    eventIds: readonly string[],
    outcomes: readonly EventOutcome[],
  ) => Promise<void>
  readonly abandon: (
    work: HeldWork<J>,
    transaction: EventTransaction,
    eventIds: readonly string[],
    step: Exclude<EventStep, { readonly kind: 'done' | 'cut short' }>,
  ) => Promise<void>
  readonly endTransactions: (namePrefix: string) => Promise<void>
}

/**
 * An event is only blamed for what is certainly its own: what breaks a transaction that several events share is no
 * attempt of any of them; they run again, each in its own transaction.
 */
export function createTransactionEnd<J extends HeldJob>(parts: ExactlyOnceParts<J>): TransactionEnd<J> {
  const { connections, database, boss, subscription, subscriptionId, logger, settler } = parts

  /** Commits what a transaction has done, with its receipts. */
  async function settle(
    work: HeldWork<J>,
    transaction: EventTransaction,
    eventIds: readonly string[],
    outcomes: readonly EventOutcome[],
  ): Promise<void> {
    const { job } = work
    const [only] = outcomes
    if (only === undefined) return transaction.rollback()
    if (!only.delivered && !isBatch(job.claim.data)) {
      // There is nothing to keep. The worker writes down that a single event's own job has failed, or the first of a key's.
      await transaction.rollback()
      work.stopped = true
      parts.noteAttempt(only, job.events)
      parts.finishEvent(job, only.eventId, only)
      return
    }
    if (job.done) return transaction.rollback()
    const isComplete = job.left.size === outcomes.length || endsJob(job, outcomes)
    const protocol = protocolOf(job.claim, isComplete)
    let committing = false
    job.completing = isComplete
    try {
      const { client } = transaction
      await transaction.beginSettling()
      const { log, readyCount } = await settleInTransaction(
        client,
        database.bossSchema,
        boss,
        subscription,
        subscriptionId,
        job.claim,
        outcomes,
        isComplete,
        database.faultPoint,
      )
      committing = true
      await transaction.commit()
      await database.faultPoint?.(`${protocol}.committed`)
      work.completed = isComplete
      work.settleFailures = 0
      log(logger)
      if (readyCount > 0) await parts.onReady()
    } catch (error) {
      await settleFailed(work, transaction, eventIds, error, committing)
      return
    } finally {
      job.completing = false
    }
    finish(work, outcomes)
  }

  function finish({ job }: HeldWork<J>, outcomes: readonly EventOutcome[]): void {
    for (const outcome of outcomes) {
      parts.noteAttempt(outcome, job.events)
      parts.finishEvent(job, outcome.eventId, undefined)
    }
    if (outcomes.some(({ delivered }) => !delivered)) parts.onFailures()
  }

  async function settleFailed(
    work: HeldWork<J>,
    transaction: EventTransaction,
    eventIds: readonly string[],
    thrown: unknown,
    committing: boolean,
  ): Promise<void> {
    await transaction.rollback()
    if (thrown instanceof ClaimLost) {
      parts.lose(work.job)
      return
    }
    if (thrown instanceof KeyLocked) {
      work.stopped = true
      work.job.delaySeconds = Math.max(work.job.delaySeconds, lockedKeyDelaySeconds)
      logger.warn(
        { subscription: subscription.name, eventCount: eventIds.length, delaySeconds: lockedKeyDelaySeconds },
        'the row of a key is locked by another transaction: its events run again later',
      )
      return
    }
    const rest = await withoutReceipt(work, eventIds)
    if (thrown instanceof AlreadyDelivered) {
      runAgain(work, rest)
      return
    }
    const error = toBusError(thrown)
    const [only] = rest
    if (
      eventIds.length === 1 &&
      only !== undefined &&
      isLostRace((error as { sqlState?: unknown }).sqlState)
    ) {
      await afterLostRace(work, only, error)
      return
    }
    // A server that takes no writes could not note a failure either.
    const isAway =
      error.code === 'BUS_DATABASE_UNAVAILABLE' || (error as { sqlState?: unknown }).sqlState === '25006'
    const isRefused = !isAway && (committing || error.retryable)
    if (isRefused && eventIds.length === 1 && only !== undefined) {
      await recordFailure(work, only, { thrown: error, final: false })
      return
    }
    runAlone(work, rest)
    if (isRefused) return
    const delayMs = failureDelayMs(work.settleFailures)
    work.settleFailures += 1
    logger.warn(
      { subscription: subscription.name, reason: reasonOf(error), delayMs },
      'a transaction of handlers could not be committed: its events run again',
    )
    await pause(delayMs, undefined, { ref: false })
  }

  /** Throws a transaction away, and decides where its events go on. */
  async function abandon(
    work: HeldWork<J>,
    transaction: EventTransaction,
    eventIds: readonly string[],
    step: Exclude<EventStep, { readonly kind: 'done' | 'cut short' }>,
  ): Promise<void> {
    if (step.kind === 'broken') await transaction.rollback()
    else {
      transaction.destroy()
      // A statement that is still running would keep its locks until it is done.
      await endTransactions(transaction.name)
    }
    if (step.kind === 'given up') return
    const rest = await withoutReceipt(work, eventIds)
    const culprit = eventIds.at(-1) ?? ''
    if (step.kind === 'failed alone') {
      runAgain(
        work,
        rest.filter((id) => id !== culprit),
      )
      if (rest.includes(culprit)) await recordFailure(work, culprit, step)
      return
    }
    if (step.kind === 'broken' && step.lostRace && eventIds.length === 1) {
      if (rest.length > 0) await afterLostRace(work, culprit, step.thrown)
      return
    }
    if (eventIds.length > 1 || !work.lostOnce.has(culprit)) {
      if (eventIds.length === 1) work.lostOnce.add(culprit)
      logger.warn(
        {
          subscription: subscription.name,
          reason: describeFailure(work.attempt, step.thrown).message,
          eventCount: rest.length,
        },
        'a transaction of handlers failed: its events run again one by one',
      )
      runAlone(work, rest)
    } else if (rest.length > 0) await recordFailure(work, culprit, { thrown: step.thrown, final: false })
  }

  /**
   * An event that had a transaction to itself, and lost against another one. That says nothing of the event, and is no attempt; but
   * only so often, because a handler may lose each time.
   */
  async function afterLostRace(work: HeldWork<J>, eventId: string, thrown: unknown): Promise<void> {
    const lostCount = (work.lostRaces.get(eventId) ?? 0) + 1
    work.lostRaces.set(eventId, lostCount)
    if (lostCount < maxLostRaces) {
      runAlone(work, [eventId])
      // Whoever it met has time to go on, and not at the same pace.
      await pause(Math.min(maxRacePauseMs, 5 * 2 ** lostCount) * (0.5 + Math.random()), undefined, {
        ref: false,
      })
      return
    }
    const { message } = describeFailure(work.attempt, thrown)
    const conflict = new DeliveryError(
      'BUS_HANDLER_TRANSACTION_CONFLICT',
      `The transaction of the handler lost against concurrent ones ${lostCount} times in a row: ${message}`,
      { cause: thrown },
    )
    await recordFailure(work, eventId, { thrown: conflict, final: false })
  }

  /** Leaves the events that are not delivered; none, when the job is another worker's. */
  async function withoutReceipt(work: HeldWork<J>, eventIds: readonly string[]): Promise<readonly string[]> {
    const { job } = work
    const delivered = await settler.untilWritten(async () => readReceipts(database, subscriptionId, eventIds))
    for (const id of delivered) parts.finishEvent(job, id, undefined)
    const rest = eventIds.filter((id) => !delivered.has(id))
    if (rest.length === 0 || job.done) return []
    if (
      await settler.untilWritten(async () =>
        holdsClaim(database, database.bossSchema, subscription, job.claim),
      )
    )
      return rest
    parts.lose(job)
    return []
  }

  /** Counts an attempt whose transaction is gone, in a transaction of the bus's own; of a key, when what comes before it is delivered. */
  async function recordFailure(
    work: HeldWork<J>,
    eventId: string,
    { thrown, final, durationMs }: { thrown: unknown; final: boolean; durationMs?: number | undefined },
  ): Promise<void> {
    const { job, attempt } = work
    if (job.done) return
    if (forgive(job, thrown)) {
      work.stopped = isKey(job)
      return
    }
    const failure = describeFailure(attempt, thrown)
    const outcome: EventOutcome = { eventId, delivered: false, failure, final, durationMs }
    if (isKey(job)) {
      work.failed = outcome
      runAgain(work, [eventId])
      return
    }
    if (!isBatch(job.claim.data)) {
      parts.noteAttempt(outcome, job.events)
      parts.finishEvent(job, eventId, outcome)
      return
    }
    const { claim } = job
    const written = await settler.untilWritten(async () =>
      database.transaction(async (client) => {
        if (!(await holdsClaim(client, database.bossSchema, subscription, claim, 'for update')))
          return undefined
        return settleInTransaction(
          client,
          database.bossSchema,
          boss,
          subscription,
          subscriptionId,
          claim,
          [outcome],
          false,
          undefined,
        )
      }),
    )
    if (written === undefined) {
      parts.lose(job)
      return
    }
    written.log(logger)
    finish(work, [outcome])
  }

  /** Not being allowed to, or the database being away, is no obstacle: the server ends them by itself, later. */
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
function endsJob(job: HeldJob, outcomes: readonly EventOutcome[]): boolean {
  return isKey(job) && outcomes.at(-1)?.delivered === false
}
