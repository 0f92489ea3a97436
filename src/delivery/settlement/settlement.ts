import type pg from 'pg'
import type { JobInsert, PgBoss } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import type { Database } from '../../database/database.ts'
import { inTransaction } from '../jobs/boss.ts'
import { keepFailures, logBuried } from '../attempts/failure.ts'
import { handedBackJob } from '../jobs/requeued-job.ts'
import { isBatch, laterAttemptJob, type JobData } from '../jobs/job.ts'
import { insertReceipts, uniqueViolation, type Receipt } from './receipts.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import {
  type JobClaim,
  type LeftToOthers,
  type FailureOutput,
  fence,
  isLastAttempt,
} from '../jobs/job-claim.ts'
import type { EventOutcome } from '../attempts/outcome.ts'
import { queueName } from '../jobs/queues.ts'
import { failClaim, type FailedClaim, joinLater, buryClaim, replaceClaim } from '../jobs/claim-operations.ts'
import { firstRetryDelaySeconds } from '../subscriptions/retry-delays.ts'

/** What of a job is to be written down. */
export interface Settlement {
  readonly claim: JobClaim
  readonly outcomes: readonly EventOutcome[]
  /** Whether nothing of the job is left to run: it is then completed, or failed as a single event. */
  readonly done: boolean
  /** Events of the job that were not begun, or cut short by a shutdown: they go back as they came. */
  readonly handedBack?: readonly string[] | undefined
  /** How long those are to wait at least. */
  readonly delaySeconds?: number | undefined
  /** How often they were looked for in the log in vain. */
  readonly misses?: number | undefined
  /** The line they go back to, where it is not the one they came from. */
  readonly lineKey?: string | undefined
  /** Its key was noted as waiting for a handler that ignores its signal. */
  readonly isNoted?: boolean | undefined
  /** They go back because only other code covers them. */
  readonly left?: LeftToOthers | undefined
}

/**
 * Writes settlements of one subscription in one transaction: later attempts, receipts, completions. A crash before
 * the commit leaves everything as it was, and the jobs run again.
 *
 * Each write is idempotent or fenced by the claim, so a settlement may be repeated after a lost commit.
 */
export async function writeSettlements(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  settlements: readonly Settlement[],
  logger: BusLogger,
): Promise<void> {
  const queue = queueName(subscription.name)
  const plan = planWrites(subscription, settlements)
  const { faultPoint } = database
  const write = async (receiptsMayExist: boolean): Promise<void> =>
    database.transaction(async (client) => {
      const options = inTransaction(client)
      await insertBatchFailures(client, boss, queue, plan)
      if (plan.laterJobs.length + plan.buried.length > 0) await faultPoint?.('settle.later-jobs-inserted')
      if (plan.receipts.length > 0) {
        await insertReceipts(client, subscriptionId, plan.receipts, receiptsMayExist)
        await faultPoint?.('settle.receipts-inserted')
      }
      if (plan.completed.length > 0) {
        await boss.complete(queue, plan.completed.map(fence), null, options)
        await faultPoint?.('settle.completed')
      }
      for (const failed of plan.failed) {
        if (failed.final || isLastAttempt(failed.claim))
          await buryClaim(client, boss, queue, failed.claim, failed.output)
        else await failClaim(client, boss, queue, failed)
        await faultPoint?.('settle.failed')
      }
      await joinLater(
        client,
        database.bossSchema,
        queue,
        plan.failed.flatMap(({ claim, final }) => (final || isLastAttempt(claim) ? [] : [claim])),
      )
      for (const { claim, job } of plan.handedBack) {
        await replaceClaim(client, boss, queue, claim, job)
        await faultPoint?.('settle.requeued')
      }
    })
  // Looking for each receipt before it is written costs half as much again, and next to none is there already.
  await write(false).catch(async (error: unknown) => {
    if ((error as { sqlState?: string }).sqlState !== uniqueViolation) throw error
    await write(true)
  })
  await faultPoint?.('settle.committed')
  for (const { job, output } of plan.buried)
    logBuried(logger, subscription.name, job.data?.eventIds[0], output)
  for (const { claim, output } of plan.failed) {
    if (output.final || isLastAttempt(claim))
      logBuried(logger, subscription.name, claim.data.eventIds[0], output)
  }
}

/** The jobs that carry on the failed events of a batch, or bury them. Their ids make repeating it harmless. */
export async function insertBatchFailures(
  client: pg.ClientBase,
  boss: PgBoss,
  queue: string,
  { buried, laterJobs }: Pick<Writes, 'buried' | 'laterJobs'>,
): Promise<void> {
  const options = inTransaction(client)
  for (const { job, output } of buried) {
    await boss.insert(queue, [job], options)
    await boss.fail(queue, job.id ?? '', output, options)
  }
  if (laterJobs.length > 0) await boss.insert(queue, [...laterJobs], options)
}

export interface Writes {
  readonly receipts: Receipt[]
  readonly laterJobs: JobInsert<JobData>[]
  readonly completed: JobClaim[]
  /** Single events whose job failed: they are tried again, or go to the dead letters when it was the last time. */
  readonly failed: FailedClaim[]
  /** Events of a batch that go to the dead letters at once. */
  readonly buried: { readonly job: JobInsert<JobData>; readonly output: FailureOutput & object }[]
  readonly handedBack: {
    readonly claim: JobClaim
    readonly job: JobInsert<JobData>
  }[]
}

/** What settlements mean in jobs and receipts. */
export function planWrites(subscription: Subscription, settlements: readonly Settlement[]): Writes {
  const plan: Writes = { receipts: [], laterJobs: [], completed: [], failed: [], buried: [], handedBack: [] }
  for (const settlement of settlements) {
    const { claim, outcomes, done, handedBack = [], delaySeconds = 0, misses, lineKey, left } = settlement
    let failedSingle = false
    for (const outcome of outcomes) {
      if (outcome.delivered) {
        plan.receipts.push({
          eventId: outcome.eventId,
          attempts: outcome.attempt,
          durationMs: outcome.durationMs,
          expired: (outcome.expired ?? outcome.erased) === true,
          erased: outcome.erased === true,
        })
      } else if (isBatch(claim.data)) {
        planBatchFailure(plan, subscription, claim, outcome)
      } else {
        failedSingle = true
        const failures = keepFailures([...claim.failures, outcome.failure])
        plan.failed.push({
          claim,
          output: { attempts: outcome.failure.attempt, final: outcome.final, failures },
          final: outcome.final,
          retryAfterSeconds: outcome.retryAfterSeconds,
        })
      }
    }
    if (handedBack.length > 0)
      plan.handedBack.push({
        claim,
        job: handedBackJob(subscription, claim, handedBack, { delaySeconds, misses, lineKey, left }),
      })
    else if (done && !failedSingle) plan.completed.push(claim)
  }
  return plan
}

function planBatchFailure(
  plan: Writes,
  subscription: Subscription,
  claim: JobClaim,
  { eventId, failure, final, retryAfterSeconds }: EventOutcome & { readonly delivered: false },
): void {
  const failures = [failure]
  if (final || subscription.retry.maxAttempts === 1) {
    const job = laterAttemptJob(claim.id, eventId, { attempts: 1, failures }, subscription, 0)
    plan.buried.push({
      job: { ...job, retryLimit: 0 },
      output: { attempts: failure.attempt, final, failures },
    })
  } else {
    const delaySeconds = retryAfterSeconds ?? firstRetryDelaySeconds(subscription.retry)
    plan.laterJobs.push(
      laterAttemptJob(claim.id, eventId, { attempts: 1, failures }, subscription, delaySeconds),
    )
  }
}
