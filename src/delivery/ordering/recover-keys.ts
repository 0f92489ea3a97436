import type pg from 'pg'
import type { JobWithMetadata } from 'pg-boss'
import { describeFailure, keepFailures } from '../attempts/failure.ts'
import { type FailureOutput, lostWorkerError, toClaim } from '../jobs/job-claim.ts'
import { JobWriter, logDeadLetters, type DeadLettered } from '../jobs/job-writer.ts'
import { inTransaction } from '../jobs/boss.ts'
import type { JobData } from '../jobs/job.ts'
import { isUnfinishedSql } from '../jobs/key-jobs.ts'
import { recordFailures } from '../ledger/failures.ts'
import { ledgerContext, type SubscriptionContext } from '../jobs/subscription-context.ts'
import { advanceKeys, afterDeadLetter, failKeys, type KeyProgress } from './ordered-keys.ts'

/** Maximum number of keys that one call recovers. */
const maxKeys = 1000

interface OrphanedKey extends pg.QueryResultRow {
  readonly id: string
  readonly job_id: string
}

/**
 * Finds keys whose job has ended although its worker never settled it. Either pg-boss ended it after its last attempt,
 * because its worker was silent: then the rule of the subscription decides. Or somebody completed, cancelled or deleted
 * it by hand: since only a receipt, a failed last attempt or a release lets a key advance, its events get a new job.
 *
 * Any number of processes may run it at once: each key is locked, and checked again.
 *
 * @returns whether jobs are ready now
 */
export async function recoverKeys(context: SubscriptionContext): Promise<boolean> {
  const { database, subscriptionId, queue } = context
  const { rows } = await database.query<OrphanedKey>(
    `select k.id, k.job_id from bus.ordered_keys k
     where k.subscription_id = $1 and k.state in ('active', 'overrunning')
       and not ${isUnfinishedSql(database, { queue: '$2', id: 'k.job_id' })}
     order by k.id limit ${maxKeys}`,
    [subscriptionId, queue],
  )
  let isReady = false
  for (const key of rows) isReady = (await recoverKey(context, key)) || isReady
  return isReady
}

async function recoverKey(context: SubscriptionContext, key: OrphanedKey): Promise<boolean> {
  const { database, subscription } = context
  const deadLetters: DeadLettered[] = []
  const isReady = await database.transaction(async (client) => {
    const { rows: locked } = await client.query(
      // A session that holds the key is working on it, or blocks it for everybody; the other keys are recovered
      // meanwhile.
      `select from bus.ordered_keys where id = $1 and job_id = $2 and state in ('active', 'overrunning') for update skip locked`,
      [key.id, key.job_id],
    )
    if (locked.length === 0) return false
    await database.faultPoint?.('recover-key.locked')
    const job = await findJob(client, context, key)
    if (job !== undefined && ['created', 'retry', 'active'].includes(job.state)) return false
    const eventId = job?.data.eventIds[0] ?? key.job_id
    let progress: KeyProgress = { keyId: key.id, jobId: key.job_id, eventId, doneCount: 0 }
    if (job?.state === 'failed' && job.data.eventIds.length === 1) {
      const output = lastOutput(job)
      deadLetters.push({ eventId, output })
      const change = afterDeadLetter(subscription.onKeyFailure, progress, eventId, output)
      const failure = output.failures.at(-1)
      const state = 'stopped' in change && change.stopped.state !== 'active' ? change.stopped.state : 'dead'
      if (failure !== undefined)
        await recordFailures(client, ledgerContext(context, job.data), [
          { eventId, failure, state, jobId: job.id, keyId: key.id },
        ])
      if ('stopped' in change) {
        await failKeys(client, [change.stopped])
        return false
      }
      progress = change.advanced
    }
    const jobs = await advanceKeys(client, subscription, [progress])
    await new JobWriter(client, context).insert(jobs)
    return jobs.length > 0
  })
  await database.faultPoint?.('recover-key.committed')
  logDeadLetters(context, deadLetters)
  return isReady
}

async function findJob(
  client: pg.ClientBase,
  { boss, queue }: SubscriptionContext,
  { job_id }: OrphanedKey,
): Promise<JobWithMetadata<JobData> | undefined> {
  const [job] = await boss.findJobs<JobData>(queue, { id: job_id, ...inTransaction(client) })
  return job
}

/** The output of a job whose last attempt pg-boss ended. */
function lastOutput(job: JobWithMetadata<JobData>): FailureOutput {
  const attempts = (job.data.attempts ?? 0) + job.retryCount + 1
  const known = (job.output as Partial<FailureOutput> | null)?.failures
  const before = toClaim({ ...job, output: {}, retryCount: 0 }).failures
  return {
    attempts,
    final: false,
    failures: known ?? keepFailures([...before, describeFailure(attempts, lostWorkerError(job.output))]),
  }
}
