import type pg from 'pg'
import type { PgBoss } from 'pg-boss'
import type { FaultHook } from '../../foundation/fault-points.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { Executor } from '../../database/database.ts'
import { inTransaction } from '../jobs/boss.ts'
import { logBuried } from '../attempts/failure.ts'
import { settleKey } from '../ordering/ordered-settlement.ts'
import { insertReceipts, uniqueViolation } from '../settlement/receipts.ts'
import { insertBatchFailures, planWrites } from '../settlement/settlement.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import { fence, type JobClaim } from '../jobs/job-claim.ts'
import type { EventOutcome } from '../attempts/outcome.ts'
import { queueName } from '../jobs/queues.ts'

/** Another worker delivered one of the events meanwhile: nothing may be committed. */
export class AlreadyDelivered extends Error {}

/** The job belongs to another worker by now: nothing may be committed. */
export class ClaimLost extends Error {}

/** Somebody else holds the row of the key for long. */
export class KeyLocked extends Error {}

/** What is to be done after the commit. */
interface SettledInTransaction {
  readonly log: (logger: BusLogger) => void
  /** Jobs that are ready then. */
  readonly readyCount: number
}

/** The names of its fault points. */
export function protocolOf({ data }: JobClaim, isComplete: boolean): 'exactly-once' | 'exactly-once-ordered' {
  return isComplete && data.keyId !== undefined ? 'exactly-once-ordered' : 'exactly-once'
}

/**
 * Writes outcomes of a job into an open transaction, so that they commit with whatever else is in it: receipts, the
 * jobs of a batch's failed events and, when nothing of the job is left, its completion. The job of a key is complete, too, when
 * an event has failed; then what becomes of the key is written here, and its next job.
 *
 * The locks, in this order: the receipts, whose primary key lets one transaction of several through; then, with the completion of
 * a key's job, the row of the key, late, so that no handler runs while others wait for it; then the row of the job, held until the
 * commit, so that no other worker can take the job over in between. Not to be repeated in the same transaction.
 *
 * @throws {@link AlreadyDelivered}, {@link ClaimLost} or {@link KeyLocked}: the transaction must be rolled back
 */
export async function settleInTransaction(
  client: pg.ClientBase,
  bossSchema: string,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  claim: JobClaim,
  outcomes: readonly EventOutcome[],
  isComplete: boolean,
  faultPoint: FaultHook | undefined,
): Promise<SettledInTransaction> {
  const queue = queueName(subscription.name)
  const { receipts, buried, laterJobs } = planWrites(subscription, [{ claim, outcomes, done: false }])
  if (receipts.length > 0) {
    // In one order for all, so that workers with the same events wait for each other and never deadlock.
    const ordered = receipts.toSorted((a, b) => (a.eventId < b.eventId ? -1 : 1))
    await insertReceipts(client, subscriptionId, ordered, false).catch((error: unknown) => {
      throw (error as { code?: string }).code === uniqueViolation ? new AlreadyDelivered() : error
    })
    await faultPoint?.(`${protocolOf(claim, isComplete)}.receipts-inserted`)
  }
  if (isComplete && claim.data.keyId !== undefined) {
    const settlement = { claim, outcomes, done: true }
    const written = await settleKey(client, boss, bossSchema, subscription, settlement, faultPoint)
    if (written === 'locked') throw new KeyLocked()
    if (!written.isCurrent) throw new ClaimLost()
    return written
  }
  await insertBatchFailures(client, boss, queue, { buried, laterJobs })
  if (isComplete) {
    const { affected } = (await boss.complete(queue, [fence(claim)], null, inTransaction(client))) as {
      affected?: number
    }
    if (affected !== 1) throw new ClaimLost()
    await faultPoint?.('exactly-once.completed')
  } else if (!(await holdsClaim(client, bossSchema, subscription, claim, 'for update'))) throw new ClaimLost()
  return {
    readyCount: 0,
    log(logger) {
      for (const { job, output } of buried)
        logBuried(logger, subscription.name, job.data?.eventIds[0], output)
    },
  }
}

/** Whether a claim is the newest one of its job; with a lock, that it stays so until the transaction ends. */
export async function holdsClaim(
  executor: Executor,
  bossSchema: string,
  { name }: Subscription,
  { id, retryCount }: JobClaim,
  lock: '' | 'for update' = '',
): Promise<boolean> {
  const { rows } = await executor.query(
    `select 1 from ${bossSchema}.job where name = $1 and id = $2 and state = 'active' and retry_count = $3 ${lock}`,
    [queueName(name), id, retryCount],
  )
  return rows.length === 1
}
