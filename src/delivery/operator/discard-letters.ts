import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'
import { findRedrivenJobs, takeDeadLetterJobs } from '../jobs/dead-letter-jobs.ts'
import { insertDiscards, removeEntries, type DeadLetterEntry } from '../ledger/dead-letter-rows.ts'
import { lockHeldKeys } from '../ordering/held-keys.ts'
import { advanceKeys } from '../ordering/ordered-keys.ts'
import type { RegisteredSubscription } from '../registry/registry.ts'
import { jobWriterOf, type LetterTransaction } from './redrive-letters.ts'

/**
 * Discards dead letters of one subscription: their events are never delivered to it, and have a receipt that says so. One that holds its key
 * releases it: the events behind it are delivered. Returns those that are discarded; the others have moved meanwhile. Locks as
 * `redriveLetters` does.
 *
 * @param discardId - the record in `bus.audit`, or the operation, that says by whom and why
 */
export async function discardLetters(
  transaction: LetterTransaction,
  subscription: RegisteredSubscription,
  letters: readonly DeadLetterEntry[],
  discardId: string,
): Promise<readonly DeadLetterEntry[]> {
  const { client, database } = transaction
  const keys = await lockHeldKeys(
    client,
    subscription.id,
    letters.flatMap(({ state, keyId }) => (state === 'dead' ? [] : (keyId ?? []))),
  )
  const candidates = letters.filter(({ state, eventId }) => state === 'dead' || keys.has(eventId))
  const jobIds = candidates.map(({ jobId }) => jobId)
  const taken = await takeDeadLetterJobs(client, database, subscription.name, jobIds)
  const redriven = await findRedrivenJobs(
    client,
    database,
    subscription.name,
    candidates.flatMap(({ jobId, eventId }) => (!taken.has(jobId) && keys.has(eventId) ? [jobId] : [])),
  )
  const discarded = candidates.filter(
    ({ jobId, eventId }) => taken.has(jobId) || (keys.has(eventId) && !redriven.has(jobId)),
  )
  if (discarded.length === 0) return []
  const advanced = discarded.flatMap(({ eventId }) => {
    const key = keys.get(eventId)
    return key === undefined ? [] : [{ keyId: key.keyId, jobId: eventId, eventId, doneCount: 1 }]
  })
  const jobs = await advanceKeys(client, subscription, advanced)
  await jobWriterOf(transaction, subscription).insert(jobs)
  await insertDiscards(client, subscription.id, discarded, discardId)
  await removeEntries(
    client,
    subscription.id,
    discarded.map(({ eventId }) => eventId),
  )
  if (jobs.length > 0) await client.query(wakeSql, [wakePayload('', [subscription.id])])
  return discarded
}
