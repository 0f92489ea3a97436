import type pg from 'pg'
import type { DeadLettered } from '../jobs/dead-letter.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import { JobWriter } from '../jobs/job-writer.ts'
import { retryJob } from '../jobs/job.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import { afterLoss } from './lost-job.ts'
import { insertReceipts, readReceipts, uniqueViolation } from './receipts.ts'
import { ClaimLost, insertNewReceipts, type SettlementWriter, type Written } from './settlement-writer.ts'
import { planWrites, type Settlement, type Writes } from './settlement.ts'

/** Writes the outcomes of batches and of single events. */
export function createJobSettlement(context: SubscriptionContext): SettlementWriter {
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
      if (plan.receipts.length > 0) {
        await insertReceipts(client, subscriptionId, plan.receipts, receiptsMayExist)
        await faultPoint?.('settle.receipts-inserted')
      }
      if (plan.completed.length > 0) {
        await jobs.complete(plan.completed)
        await faultPoint?.('settle.completed')
      }
      for (const { claim, output } of plan.deadLetters) {
        await jobs.deadLetter(claim, output)
        await faultPoint?.('settle.failed')
      }
      for (const failed of plan.failed) {
        await jobs.retry(failed)
        await faultPoint?.('settle.failed')
      }
      await jobs.rankAsRetries(plan.failed.map(({ claim }) => claim))
      for (const { claim, job } of plan.requeued) {
        await jobs.replace(claim, job)
        await faultPoint?.('settle.requeued')
      }
    })
  }

  async function writeInto(client: pg.ClientBase, settlement: Settlement): Promise<Written> {
    const { claim, done } = settlement
    if (await insertNewReceipts(client, context, settlement))
      await faultPoint?.('exactly-once.receipts-inserted')
    const plan = planWrites(subscription, [{ ...settlement, done: false }])
    const jobs = new JobWriter(client, context)
    await insertBatchFailures(jobs, plan)
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
    const { past, retryLimit, output } = afterLoss(claim, subscription)
    const deadLetters = await database.transaction(async (client): Promise<readonly DeadLettered[]> => {
      const delivered = await readReceipts(client, subscriptionId, claim.data.eventIds)
      const undelivered = claim.data.eventIds.filter((id) => !delivered.has(id))
      const jobs = new JobWriter(client, context)
      // Another worker was faster.
      if (!(await jobs.complete([claim])).has(claim.id)) return []
      await faultPoint?.('recover-job.completed')
      const next = undelivered.map((id) => ({
        ...retryJob(claim.id, id, past, subscription, 0),
        retryLimit,
      }))
      if (output === undefined) await jobs.insert(next)
      else for (const job of next) await jobs.insertDeadLetter(job, output)
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

function deadLettersOf({ batchDeadLetters, deadLetters }: Writes): readonly DeadLettered[] {
  return [
    ...batchDeadLetters.map(({ job, output }) => ({ eventId: job.data?.eventIds[0] ?? '', output })),
    ...deadLetters.map(({ claim, output }) => ({ eventId: claim.data.eventIds[0] ?? '', output })),
  ]
}
