import { randomUUID } from 'node:crypto'
import type pg from 'pg'
import type { JobInsert } from 'pg-boss'
import type { Database } from '../../database/database.ts'
import { locks } from '../../database/locks.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'
import { inTransaction, unstartedBoss } from '../jobs/boss.ts'
import { findRedrivenJobs, takeDeadLetterJobs } from '../jobs/dead-letter-jobs.ts'
import { JobWriter } from '../jobs/job-writer.ts'
import { newJob, retryPriority, type JobData } from '../jobs/job.ts'
import { queueName } from '../jobs/queues.ts'
import {
  markRetrying,
  removeEntries,
  type DeadLetterEntry,
  type RetriedEntry,
} from '../ledger/dead-letter-rows.ts'
import { lockHeldKeys, resumeKeys } from '../ordering/held-keys.ts'
import { enqueueOrdered } from '../ordering/ordered-keys.ts'
import type { RegisteredSubscription } from '../registry/registry.ts'
import type { LogEvent } from './log-events.ts'

/** What a redrive of some dead letters works with: an open transaction. */
export interface LetterTransaction {
  readonly client: pg.ClientBase
  readonly database: Database
  readonly logger: BusLogger
}

/** A dead letter whose event is in the log. */
export interface RedrivableLetter extends DeadLetterEntry {
  readonly event: LogEvent
}

/** Creates the writer of a subscription's jobs. */
export function jobWriterOf(
  { client, database, logger }: LetterTransaction,
  { name }: Pick<RegisteredSubscription, 'name'>,
): JobWriter {
  const boss = unstartedBoss(database, logger, inTransaction(client))
  return new JobWriter(client, { boss, queue: queueName(name), database })
}

/**
 * Has dead letters of one subscription tried again, with all their attempts; their history is kept. Returns those that are. The others have
 * moved meanwhile: somebody else has redriven, released or discarded them.
 *
 * * One that holds its key releases it: the failed event is tried first, then those behind it, in their order.
 * * One of an ordered subscription that holds no key any more, because it was skipped, goes to the end of its key, so that its events do
 *   not run beside each other. It waits there as if it had not been tried.
 * * Any other one gets a job of its own.
 *
 * Whoever deletes the job of a dead letter from pg-boss redrives it, so nothing is doubled, whatever else redrives it at the same time.
 * Locks, in this order: the keys, as {@link lockHeldKeys} does, those of skipped events under the lock on the order; the jobs of the dead
 * letters; their rows in `bus.failing`.
 */
export async function redriveLetters(
  transaction: LetterTransaction,
  subscription: RegisteredSubscription,
  letters: readonly RedrivableLetter[],
): Promise<readonly RedrivableLetter[]> {
  const { client } = transaction
  const held = letters.filter(({ state }) => state !== 'dead')
  const isSkipped = ({ state, event }: RedrivableLetter): boolean =>
    state === 'dead' && subscription.ordered === true && event.orderingKey !== undefined
  const skipped = letters.filter(isSkipped)
  const free = letters.filter((letter) => letter.state === 'dead' && !isSkipped(letter))
  const jobs: JobInsert<JobData>[] = []
  const redriven = [
    ...(await appendToKeys(transaction, subscription, skipped, jobs)),
    ...(await releaseKeys(transaction, subscription, held, jobs)),
    ...(await retryAlone(transaction, subscription, free, jobs)),
  ]
  await jobWriterOf(transaction, subscription).insert(jobs)
  if (redriven.length > 0) await client.query(wakeSql, [wakePayload('', [subscription.id])])
  return redriven
}

async function retryAlone(
  { client, database }: LetterTransaction,
  subscription: RegisteredSubscription,
  letters: readonly RedrivableLetter[],
  jobs: JobInsert<JobData>[],
): Promise<readonly RedrivableLetter[]> {
  const taken = await takeDeadLetterJobs(
    client,
    database,
    subscription.name,
    letters.map(({ jobId }) => jobId),
  )
  const retried: RetriedEntry[] = []
  const redriven = letters.filter(({ jobId }) => taken.has(jobId))
  for (const { eventId, attempts, jobId } of redriven) {
    const id = randomUUID()
    const { failures = [], data: { keyId: _, ...known } = {} } = taken.get(jobId) ?? {}
    const data: JobData = { ...known, eventIds: [eventId], attempts, failures }
    jobs.push({ ...newJob([eventId], subscription), id, data, priority: retryPriority })
    retried.push({ eventId, jobId: id })
  }
  await markRetrying(client, subscription.id, retried)
  return redriven
}

/** As {@link BlockedKeys.release} does for one key. */
async function releaseKeys(
  { client, database }: LetterTransaction,
  subscription: RegisteredSubscription,
  letters: readonly RedrivableLetter[],
  jobs: JobInsert<JobData>[],
): Promise<readonly RedrivableLetter[]> {
  const keys = await lockHeldKeys(
    client,
    subscription.id,
    letters.flatMap(({ keyId }) => keyId ?? []),
  )
  const released = letters.filter(({ eventId }) => keys.has(eventId))
  const jobIds = released.map(({ jobId }) => jobId)
  const taken = await takeDeadLetterJobs(client, database, subscription.name, jobIds)
  const missing = jobIds.filter((id) => !taken.has(id))
  // Somebody has redriven them through pg-boss, and their keys wait until they succeed.
  const redriven = await findRedrivenJobs(client, database, subscription.name, missing)
  const resumed: { readonly keyId: string; readonly jobId: string; readonly eventId: string }[] = []
  for (const { eventId, jobId } of released) {
    const key = keys.get(eventId)
    if (key === undefined) continue
    const { keyId, attempts, failures } = key
    const known = redriven.get(jobId)
    const id = known ?? randomUUID()
    resumed.push({ keyId, jobId: id, eventId })
    if (known !== undefined) continue
    const data: JobData = { ...taken.get(jobId)?.data, eventIds: [eventId], attempts, failures, keyId }
    jobs.push({ ...newJob([eventId], subscription), id, data, priority: retryPriority })
  }
  await resumeKeys(client, resumed)
  await markRetrying(client, subscription.id, resumed)
  return released
}

async function appendToKeys(
  { client, database }: LetterTransaction,
  subscription: RegisteredSubscription,
  letters: readonly RedrivableLetter[],
  jobs: JobInsert<JobData>[],
): Promise<readonly RedrivableLetter[]> {
  if (letters.length === 0) return []
  // The relay that dispatches events with an ordering key adds keys under it.
  await client.query('select pg_advisory_xact_lock($1, $2)', [locks.namespace, locks.order])
  const taken = await takeDeadLetterJobs(
    client,
    database,
    subscription.name,
    letters.map(({ jobId }) => jobId),
  )
  const appended = letters
    .filter(({ jobId }) => taken.has(jobId))
    .toSorted((a, b) => (a.eventId < b.eventId ? -1 : 1))
  await removeEntries(
    client,
    subscription.id,
    appended.map(({ eventId }) => eventId),
  )
  const events = appended.map(({ event }) => ({ ...event, wasScheduled: false }))
  const begun = await enqueueOrdered(client, subscription.id, subscription, events, {
    retaken: false,
    patient: true,
  })
  jobs.push(...begun.jobs)
  return appended
}
