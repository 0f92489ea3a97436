import type pg from 'pg'
import type { JobInsert, PgBoss } from 'pg-boss'
import type { BusLogger } from '../events/logger.ts'
import type { Database } from '../outbox/database.ts'
import { queryPrepared } from '../outbox/prepared.ts'
import { inTransaction } from './boss.ts'
import { keepFailures, logBuried, type AttemptFailure } from './failure.ts'
import { handedBackJob } from './handed-back-job.ts'
import {
  firstRetryDelaySeconds,
  isBatch,
  laterAttemptJob,
  laterPriority,
  lossAllowance,
  type JobData,
} from './job.ts'
import { insertReceipts, uniqueViolation, type Receipt } from './receipts.ts'
import { queueName, type Subscription } from './subscription.ts'

/** The claim of a worker on a job: settling it is refused by pg-boss once another attempt has begun. */
export interface JobClaim {
  readonly id: string
  readonly retryCount: number
  /** How often pg-boss runs the job again at most. */
  readonly retryLimit: number
  /** Where in the line it stood, and in whose: see fair-batches.ts. */
  readonly priority: number
  readonly lineKey: string | undefined
  readonly data: JobData
  /** What is known of failed attempts before this one. */
  readonly failures: readonly AttemptFailure[]
}

/** What became of one event of a job. */
export type EventOutcome =
  | {
      readonly eventId: string
      readonly delivered: true
      /** It was not, and need not be any more: its time has passed. `attempt` is then the number of those that failed. */
      readonly expired?: true
      /** It was erased before it was delivered: as `expired`. */
      readonly erased?: true
      readonly attempt: number
      readonly durationMs: number
    }
  | {
      readonly eventId: string
      readonly delivered: false
      readonly failure: AttemptFailure
      readonly final: boolean
      /** How long the handler ran, where one did. */
      readonly durationMs?: number | undefined
      /** When the handler said so: how long to wait before the next attempt, in place of what `retry` says. */
      readonly retryAfterSeconds?: number
    }

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

/** How jobs go back that this process's code does not cover. */
export interface LeftToOthers {
  /** The declarations that have left them. */
  readonly by: readonly number[]
  /** Whether they go behind everything else, because no live process covers them. */
  readonly isLast: boolean
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
  const { reach } = database
  const write = async (receiptsMayExist: boolean): Promise<void> =>
    database.transaction(async (client) => {
      const options = inTransaction(client)
      await insertBatchFailures(client, boss, queue, plan)
      if (plan.laterJobs.length + plan.buried.length > 0) await reach?.('settle.later-jobs-inserted')
      if (plan.receipts.length > 0) {
        await insertReceipts(client, subscriptionId, plan.receipts, receiptsMayExist)
        await reach?.('settle.receipts-inserted')
      }
      if (plan.completed.length > 0) {
        await boss.complete(queue, plan.completed.map(fence), null, options)
        await reach?.('settle.completed')
      }
      for (const failed of plan.failed) {
        if (failed.final || isLastAttempt(failed.claim))
          await buryClaim(client, boss, queue, failed.claim, failed.output)
        else await failClaim(client, boss, queue, failed)
        await reach?.('settle.failed')
      }
      await joinLater(
        client,
        database.bossSchema,
        queue,
        plan.failed.flatMap(({ claim, final }) => (final || isLastAttempt(claim) ? [] : [claim])),
      )
      for (const { claim, job } of plan.handedBack) {
        await replaceClaim(client, boss, queue, claim, job)
        await reach?.('settle.handed-back')
      }
    })
  // Looking for each receipt before it is written costs half as much again, and next to none is there already.
  await write(false).catch(async (error: unknown) => {
    if ((error as { sqlState?: string }).sqlState !== uniqueViolation) throw error
    await write(true)
  })
  await reach?.('settle.committed')
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

/** What pg-boss keeps as the output of a failed job, and copies into its dead letter. */
export interface FailureOutput {
  readonly attempts: number
  readonly final: boolean
  readonly failures: readonly AttemptFailure[]
}

interface FailedClaim {
  readonly claim: JobClaim
  readonly output: FailureOutput
  readonly final: boolean
  readonly retryAfterSeconds: number | undefined
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

/** Whether no attempt is left at a single event after this one. */
export function isLastAttempt({ retryCount, retryLimit }: JobClaim): boolean {
  return retryCount >= retryLimit - lossAllowance
}

/** Fails the job of a single event that is to be tried again. A delay that the handler asked for is set on the waiting job. */
export async function failClaim(
  client: pg.ClientBase,
  boss: PgBoss,
  queue: string,
  { claim, output, retryAfterSeconds }: FailedClaim,
): Promise<boolean> {
  const options = inTransaction(client)
  const failed = (await boss.fail(queue, [fence(claim)], output, options)) as { affected?: number }
  if (failed.affected !== 1) return false
  if (retryAfterSeconds !== undefined)
    await boss.update(queue, undefined, { id: claim.id, startAfter: retryAfterSeconds, ...options })
  return true
}

/** From its first failure on, the job of a single event stands among those that are tried again, and no longer in its place in the line. */
export async function joinLater(
  client: pg.ClientBase,
  bossSchema: string,
  queue: string,
  claims: readonly JobClaim[],
): Promise<void> {
  const ids = claims.flatMap(({ id, priority }) => (priority === laterPriority ? [] : [id]))
  if (ids.length === 0) return
  await queryPrepared(
    client,
    `update ${bossSchema}.job set priority = ${laterPriority} where name = $1 and id = any($2::uuid[]) and state = 'retry'`,
    [queue, ids],
  )
}

/** Sends a single event to the dead letters: pg-boss alone never would. False, and nothing is written, when the claim was lost. */
export async function buryClaim(
  client: pg.ClientBase,
  boss: PgBoss,
  queue: string,
  claim: JobClaim,
  output: FailureOutput,
): Promise<boolean> {
  const data = { ...claim.data, attempts: output.attempts, failures: output.failures }
  const replaced = await replaceClaim(client, boss, queue, claim, {
    id: claim.id,
    data,
    retryLimit: 0,
    priority: laterPriority,
  })
  if (replaced) await boss.fail(queue, claim.id, output, inTransaction(client))
  return replaced
}

/** Puts another job in the place of a claimed one. False, and nothing is written, when the claim was lost. */
export async function replaceClaim(
  client: pg.ClientBase,
  boss: PgBoss,
  queue: string,
  claim: JobClaim,
  job: JobInsert<JobData>,
): Promise<boolean> {
  const options = inTransaction(client)
  const deleted = (await boss.deleteJob(queue, [fence(claim)], options)) as { affected?: number }
  if (deleted.affected !== 1) return false
  await boss.insert(queue, [job], options)
  return true
}

/** What pg-boss tells the attempts at a job apart by. */
export function fence({ id, retryCount }: JobClaim): { id: string; retryCount: number } {
  return { id, retryCount }
}
