import type pg from 'pg'
import type { JobClaim, FailureOutput } from '../jobs/job-claim.ts'
import { JobWriter, type DeadLettered, type FailedClaim } from '../jobs/job-writer.ts'
import { retryJob, isBatch, type JobData, type PastAttempts } from '../jobs/job.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import { afterWorkerLoss } from './lost-worker.ts'
import { recordFailures, type FailureRecord } from '../ledger/failures.ts'
import { readReceipts, uniqueViolation } from '../ledger/receipts.ts'
import { insertNewReceipts, writeReceipts } from './write-receipts.ts'
import {
  type Settlement,
  type FailedOutcome,
  isGivenUp,
  retryAfterSeconds,
  failureOutput,
  failureRecord,
  receiptsOf,
  isFailure,
  ClaimLost,
  type JobReceipts,
  type SettlementWriter,
  type Written,
} from './settlement.ts'
import type { JobInsert } from 'pg-boss'
import { requeuedJob } from '../jobs/requeued-job.ts'
import { firstRetryDelaySeconds } from '../subscriptions/retry-delays.ts'
import type { ResolvedRetry } from '../subscriptions/retry-options.ts'
import type { Subscription } from '../subscriptions/subscription.ts'

/** Writes the outcomes of batches and of single events. */
export function createJobSettlementWriter(context: SubscriptionContext): SettlementWriter {
  const { database, subscription, subscriptionId } = context
  const { faultPoint } = database

  async function write(settlements: readonly Settlement[]): Promise<Written> {
    const plan = planWrites(subscription, settlements)
    // Looking for each receipt before it is written costs half as much again, and hardly any is there already.
    await writePlan(plan, false).catch(async (error: unknown) => {
      if ((error as { sqlState?: string }).sqlState !== uniqueViolation) throw error
      await writePlan(plan, true)
    })
    await faultPoint?.('settle.committed')
    return { readyCount: 0, deadLetters: deadLettersOf(plan) }
  }

  /** @param receiptsMayExist - else a receipt that is there already is a unique violation */
  async function writePlan(plan: Writes, receiptsMayExist: boolean): Promise<void> {
    await database.transaction(async (client) => {
      const jobs = new JobWriter(client, context)
      await insertBatchFailures(jobs, plan)
      if (plan.retries.length + plan.batchDeadLetters.length > 0)
        await faultPoint?.('settle.retries-inserted')
      const ended = await endJobs(jobs, plan)
      if (plan.receipts.length > 0) {
        await writeReceipts(client, context, plan.receipts, ({ id }) => ended.has(id), receiptsMayExist)
        await faultPoint?.('settle.receipts-inserted')
      }
      if (plan.failures.length > 0) {
        const current = new Set(ended)
        for (const claim of plan.unfinished) if (await jobs.lock(claim)) current.add(claim.id)
        const failures = plan.failures.filter(({ claim }) => current.has(claim.id))
        await recordFailures(
          client,
          context,
          failures.map(({ record }) => record),
        )
        await faultPoint?.('settle.failures-recorded')
      }
    })
  }

  /** Returns the ids of the jobs that it has ended: their claims were current, and are not any more, should this be repeated. */
  async function endJobs(jobs: JobWriter, plan: Writes): Promise<ReadonlySet<string>> {
    const ended = new Set<string>()
    if (plan.completed.length > 0) {
      for (const id of await jobs.complete(plan.completed)) ended.add(id)
      await faultPoint?.('settle.completed')
    }
    for (const { claim, output } of plan.deadLetters) {
      if (await jobs.deadLetter(claim, output)) ended.add(claim.id)
      await faultPoint?.('settle.failed')
    }
    for (const failed of plan.failed) {
      if (await jobs.retry(failed)) ended.add(failed.claim.id)
      await faultPoint?.('settle.failed')
    }
    await jobs.rankAsRetries(plan.failed.map(({ claim }) => claim))
    for (const { claim, job } of plan.requeued) {
      if (await jobs.replace(claim, job)) ended.add(claim.id)
      await faultPoint?.('settle.requeued')
    }
    return ended
  }

  async function writeInto(client: pg.ClientBase, settlement: Settlement): Promise<Written> {
    const { claim, done } = settlement
    const plan = planWrites(subscription, [{ ...settlement, done: false }])
    if (await insertNewReceipts(client, context, plan.receipts))
      await faultPoint?.('exactly-once.receipts-inserted')
    const jobs = new JobWriter(client, context)
    await insertBatchFailures(jobs, plan)
    await recordFailures(
      client,
      context,
      plan.failures.map(({ record }) => record),
    )
    // The row of the job stays locked until the commit, so that no other worker can take the job over in between.
    if (!done) {
      if (!(await jobs.lock(claim))) throw new ClaimLost()
    } else {
      if (!(await jobs.complete([claim])).has(claim.id)) throw new ClaimLost()
      await faultPoint?.('exactly-once.completed')
    }
    return { readyCount: 0, deadLetters: deadLettersOf(plan) }
  }

  async function recover(claim: JobClaim): Promise<Written> {
    const { past, retryLimit, output } = afterWorkerLoss(claim, subscription)
    const deadLetters = await database.transaction(async (client): Promise<readonly DeadLettered[]> => {
      const delivered = await readReceipts(client, subscriptionId, claim.data.eventIds)
      const undelivered = claim.data.eventIds.filter((id) => !delivered.has(id))
      const jobs = new JobWriter(client, context)
      // Another worker was faster.
      if (!(await jobs.complete([claim])).has(claim.id)) return []
      await faultPoint?.('recover-job.completed')
      const next = undelivered.map((id) => ({
        ...retryJob(claim, id, past, subscription, 0),
        retryLimit,
      }))
      if (output === undefined) await jobs.insert(next)
      else for (const job of next) await jobs.insertDeadLetter(job, output)
      await recordFailures(
        client,
        context,
        lossRecords(next, past, output === undefined ? 'retrying' : 'dead'),
      )
      await faultPoint?.('recover-job.jobs-inserted')
      return output === undefined ? [] : undelivered.map((eventId) => ({ eventId, output }))
    })
    await faultPoint?.('recover-job.committed')
    return { readyCount: 0, deadLetters }
  }

  return { write, writeInto, recover }
}

/** Inserts the jobs of a batch's events that have failed. Their ids follow from the batch, so repeating it is harmless. */
async function insertBatchFailures(
  jobs: JobWriter,
  { batchDeadLetters, retries }: Pick<Writes, 'batchDeadLetters' | 'retries'>,
): Promise<void> {
  for (const { job, output } of batchDeadLetters) await jobs.insertDeadLetter(job, output)
  await jobs.insert(retries)
}

/** The attempts that were lost with a worker. */
function lossRecords(
  jobs: readonly NewDeadLetter['job'][],
  { failures }: PastAttempts,
  state: 'retrying' | 'dead',
): FailureRecord[] {
  const failure = failures.at(-1)
  if (failure === undefined) return []
  return jobs.flatMap(({ id: jobId, data }) =>
    (data?.eventIds ?? []).map((eventId) => ({ eventId, failure, state, jobId })),
  )
}

function deadLettersOf({ batchDeadLetters, deadLetters, failures }: Writes): readonly DeadLettered[] {
  const all = [
    ...batchDeadLetters.map(({ job, output }) => ({ eventId: job.data?.eventIds[0] ?? '', output })),
    ...deadLetters.map(({ claim, output }) => ({ eventId: claim.data.eventIds[0] ?? '', output })),
  ]
  if (all.length === 0) return []
  const records = new Map(failures.map(({ record }) => [record.eventId, record]))
  return all.map((letter) => {
    const { tenantId, type, durationMs } = records.get(letter.eventId) ?? {}
    return { ...letter, tenantId, type, durationMs }
  })
}

/** A job that is inserted as a dead letter. */
interface NewDeadLetter {
  readonly job: JobInsert<JobData> & { readonly id: string }
  readonly output: FailureOutput
}

/** What is recorded about a failed event of a claimed job. */
interface JobFailure {
  readonly claim: JobClaim
  readonly record: FailureRecord
}

/** The writes that some settlements need. */
export interface Writes {
  readonly receipts: JobReceipts[]
  readonly failures: JobFailure[]
  /** Jobs for the events of a batch that failed and are tried again. */
  readonly retries: JobInsert<JobData>[]
  readonly completed: JobClaim[]
  /** Jobs of single events that pg-boss runs again. */
  readonly failed: FailedClaim[]
  /** Jobs of single events that become dead letters. */
  readonly deadLetters: { readonly claim: JobClaim; readonly output: FailureOutput }[]
  /** Events of a batch that become dead letters. */
  readonly batchDeadLetters: NewDeadLetter[]
  readonly requeued: { readonly claim: JobClaim; readonly job: JobInsert<JobData> }[]
  /** Jobs that run on, of which some events have failed. */
  readonly unfinished: JobClaim[]
}

/** Plans the writes for jobs that are not a key's. */
export function planWrites(subscription: Subscription, settlements: readonly Settlement[]): Writes {
  const plan: Writes = {
    receipts: receiptsOf(settlements),
    failures: [],
    retries: [],
    completed: [],
    failed: [],
    deadLetters: [],
    batchDeadLetters: [],
    requeued: [],
    unfinished: [],
  }
  for (const { claim, outcomes, done, requeued = [], ...how } of settlements) {
    const failures = outcomes.filter(isFailure)
    const inBatch = isBatch(claim.data)
    for (const outcome of failures) {
      if (inBatch) planBatchFailure(plan, subscription, claim, outcome)
      else planFailure(plan, subscription.retry, claim, outcome)
    }
    if (requeued.length > 0)
      plan.requeued.push({ claim, job: requeuedJob(subscription, claim, requeued, how) })
    else if (done && (inBatch || failures.length === 0)) plan.completed.push(claim)
    else if (inBatch && failures.length > 0) plan.unfinished.push(claim)
  }
  return plan
}

function planFailure(plan: Writes, retry: ResolvedRetry, claim: JobClaim, outcome: FailedOutcome): void {
  const output = failureOutput(claim, outcome)
  const isDead = isGivenUp(claim, retry, outcome)
  if (isDead) plan.deadLetters.push({ claim, output })
  else plan.failed.push({ claim, output, retryAfterSeconds: retryAfterSeconds(claim, retry, outcome) })
  plan.failures.push({ claim, record: failureRecord(outcome, isDead ? 'dead' : 'retrying', claim.id) })
}

function planBatchFailure(
  plan: Writes,
  subscription: Subscription,
  claim: JobClaim,
  outcome: FailedOutcome,
): void {
  const { retry } = subscription
  const { eventId, failure, retryAfterSeconds: delaySeconds = firstRetryDelaySeconds(retry) } = outcome
  const past = { attempts: 1, failures: [failure] }
  const job = retryJob(claim, eventId, past, subscription, delaySeconds)
  const isDead = isGivenUp(claim, retry, outcome)
  if (isDead) plan.batchDeadLetters.push({ job, output: failureOutput(claim, outcome) })
  else plan.retries.push(job)
  plan.failures.push({ claim, record: failureRecord(outcome, isDead ? 'dead' : 'retrying', job.id) })
}
