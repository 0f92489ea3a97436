import { checkActor, writeAudit } from '../../audit/audit.ts'
import { limits } from '../../foundation/limits.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import {
  assertObject,
  assertTextOption,
  booleanOption,
  integerOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import type { Database } from '../../database/database.ts'
import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'
import { inTransaction, unstartedBoss } from '../jobs/boss.ts'
import { assertUsableBoss } from '../jobs/boss-version.ts'
import type { AttemptFailure } from '../attempts/failure.ts'
import { JobWriter } from '../jobs/job-writer.ts'
import { newJob, retryPriority, type JobData } from '../jobs/job.ts'
import { deleteKeyDeadLetter, findRedrivenJob } from '../jobs/key-jobs.ts'
import { findFailingJob, releaseFailing } from '../ledger/failures.ts'
import { advanceKeys, lockWaitingKey } from '../ordering/ordered-keys.ts'
import { findSubscription, refuseUnknownSubscription } from '../registry/find-subscription.ts'
import type { RegisteredSubscription } from '../registry/registry.ts'
import { deadLetterQueueName, queueName } from '../jobs/queues.ts'

/**
 * A key of an ordered subscription that is waiting: for a person, because one of its events failed its last attempt, or
 * for a handler that ignores its signal.
 */
export interface BlockedKey {
  readonly subscription: string
  readonly tenantId: string
  readonly orderingKey: string
  /**
   * `'blocked'`: the events after the failed one wait. `'parked'`: they are dead letters. `'overrunning'`: an attempt
   * has timed out, but its handler is still running in some process; the key resumes when the handler ends, or when its
   * worker's claim expires.
   */
  readonly state: 'blocked' | 'parked' | 'overrunning'
  /** The id of the failed event in the log. */
  readonly id: string
  /** Attempts made at the failed event. */
  readonly attempts: number
  /** The failures that are known: the first and the latest ones. */
  readonly failures: readonly AttemptFailure[]
  /** When the first event failed its last attempt, or when the handler was found to ignore its signal. */
  readonly since: Date
  /** Events of the key after the failed one. */
  readonly waitingCount: number
}

/** The key to release, and what to do with its failed event. */
export interface KeyRelease {
  readonly subscription: string
  readonly tenantId: string
  readonly orderingKey: string
  /**
   * False: the failed event is tried again first, with all its attempts. True: it is skipped, and stays a dead letter.
   * @defaultValue `false`
   */
  readonly skipFailed?: boolean | undefined
  /** The person or program that releases it, 1 to 255 characters. Recorded. @defaultValue the service of the bus */
  readonly by?: string | undefined
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
}

/** A validated release. */
interface CheckedRelease {
  readonly subscription: string
  readonly tenantId: string
  readonly orderingKey: string
  readonly skipFailed: boolean
  readonly by: string
  readonly reason: string | undefined
}

/** Lists the waiting keys of ordered subscriptions, and releases those that wait for a person. */
export interface BlockedKeys {
  /**
   * The waiting keys, longest first, up to `limit` (1 to 1,000, default 100); of one subscription, one tenant or with one ordering key if
   * given.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  list: (filter?: {
    readonly subscription?: string | undefined
    readonly tenantId?: string | undefined
    readonly orderingKey?: string | undefined
    readonly limit?: number | undefined
  }) => Promise<BlockedKey[]>
  /**
   * Releases a key: the failed event is retried or skipped, then the events after it are delivered in publish order;
   * events published meanwhile follow. Works from any process, started or not. Resolves to `true` if the key was
   * waiting for a person. Otherwise it resolves to `false` and changes nothing, for example because somebody else has
   * released it, or because it waits for a handler.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  release: (key: KeyRelease) => Promise<boolean>
}

interface BlockedKeyRow extends Record<string, unknown> {
  readonly subscription: string
  readonly tenant_id: string
  readonly ordering_key: string
  readonly state: BlockedKey['state']
  readonly failed_event_id: string
  readonly attempts: number
  readonly failures: readonly AttemptFailure[]
  readonly failed_at: Date
  readonly event_count: string
}

/** @param service - recorded where no person is named */
export function createBlockedKeys(database: Database, service: string, logger: BusLogger): BlockedKeys {
  return {
    async list(filter = {}) {
      assertObject('a filter like { subscription, tenantId, orderingKey, limit }', filter)
      refuseUnknownKeys(filter, ['subscription', 'tenantId', 'orderingKey', 'limit'], 'blockedKeys.list')
      const { subscription, tenantId, orderingKey, limit } = filter
      const count = integerOption('limit', limit, limits.listLimit)
      if (subscription !== undefined)
        assertTextOption('subscription', subscription, { max: limits.subscriptionNameLength })
      if (tenantId !== undefined) assertTextOption('tenantId', tenantId, { max: limits.keyLength })
      if (orderingKey !== undefined) assertTextOption('orderingKey', orderingKey, { max: limits.keyLength })
      const { rows } = await database.query<BlockedKeyRow>(
        `select s.name as subscription, k.tenant_id, k.ordering_key, k.state, k.failed_event_id, k.attempts, k.failures, k.failed_at,
           (select count(*) from bus.ordered_events e where e.key_id = k.id and e.seq > k.done_seq) as event_count
         from (
           select k.* from bus.ordered_keys k
           where k.failed_at is not null
             and ($1::text is null or k.subscription_id = (select id from bus.subscriptions where name = $1))
             and ($3::text is null or k.tenant_id = $3) and ($4::text is null or k.ordering_key = $4)
           order by k.failed_at, k.id limit $2
         ) k
         join bus.subscriptions s on s.id = k.subscription_id
         order by k.failed_at, k.id`,
        [subscription ?? null, count, tenantId ?? null, orderingKey ?? null],
      )
      if (rows.length === 0) await refuseUnknownSubscription(database, subscription)
      return rows.map((row) => ({
        subscription: row.subscription,
        tenantId: row.tenant_id,
        orderingKey: row.ordering_key,
        state: row.state,
        id: row.failed_event_id,
        attempts: row.attempts,
        failures: row.failures,
        since: row.failed_at,
        waitingCount: Math.max(0, Number(row.event_count) - 1),
      }))
    },
    async release(given) {
      const release = checkRelease(given, service)
      const subscription = await findSubscription(database, release.subscription)
      await assertUsableBoss(database)
      return releaseKey(database, logger, subscription, release)
    },
  }
}

/**
 * One transaction under the key's row lock: new events of the key are appended before or after it, and a concurrent
 * release of the same key finds it active.
 */
async function releaseKey(
  database: Database,
  logger: BusLogger,
  subscription: RegisteredSubscription,
  { tenantId, orderingKey, skipFailed, by, reason }: CheckedRelease,
): Promise<boolean> {
  const queue = queueName(subscription.name)
  const released = await database.transaction(async (client) => {
    const boss = unstartedBoss(database, logger, inTransaction(client))
    const jobWriter = new JobWriter(client, { boss, queue, database })
    const key = await lockWaitingKey(client, subscription.id, tenantId, orderingKey)
    if (key === undefined) return false
    await database.faultPoint?.('release-key.locked')
    const { keyId, failedEventId, attempts, failures, replay } = key
    const ledgerId = replay?.ledgerId ?? subscription.id
    await writeAudit(
      client,
      {
        ...{ by, reason, action: 'blockedKeys.release', subscription: subscription.name, tenantId },
        ...{ eventId: failedEventId, selection: { orderingKey }, change: { skipFailed } },
      },
      {},
    )
    if (skipFailed) {
      const progress = { keyId, jobId: failedEventId, eventId: failedEventId, doneCount: 1 }
      const jobs = await advanceKeys(client, subscription, [progress])
      await jobWriter.insert(jobs)
      await releaseFailing(client, ledgerId, failedEventId, undefined)
    } else {
      const deadJobId = await findFailingJob(client, ledgerId, failedEventId)
      const failed = { keyId, eventId: failedEventId, jobId: deadJobId }
      // Somebody may have redriven the dead letter through pg-boss directly.
      const redriven = await findRedrivenJob(client, database, queue, failed)
      const jobId = await key.resume(redriven)
      if (redriven === undefined) {
        const job = newJob([failedEventId], subscription)
        const data: JobData = {
          ...{ eventIds: [failedEventId], attempts, failures, keyId },
          ...(replay === undefined ? {} : { replay }),
        }
        await jobWriter.insert([{ ...job, id: jobId, data, priority: retryPriority }])
      }
      await releaseFailing(client, ledgerId, failedEventId, jobId)
      await deleteKeyDeadLetter(client, database, deadLetterQueueName(subscription.name), failed)
    }
    await database.faultPoint?.('release-key.job-inserted')
    await client.query(wakeSql, [wakePayload('', [subscription.id])])
    return true
  })
  if (released) await database.faultPoint?.('release-key.committed')
  return released
}

/** Validated at run time, for callers without types. */
function checkRelease(given: KeyRelease, service: string): CheckedRelease {
  assertObject('a key like { subscription, tenantId, orderingKey }', given)
  const known = ['subscription', 'tenantId', 'orderingKey', 'skipFailed', 'by', 'reason']
  refuseUnknownKeys(given, known, 'blockedKeys.release')
  const { subscription, tenantId, orderingKey, by: who = service } = given
  const { by, reason } = checkActor({ by: who, reason: given.reason })
  assertTextOption('subscription', subscription, { max: limits.subscriptionNameLength })
  // Plain SQL may have published longer keys than publish accepts.
  assertTextOption('tenantId', tenantId)
  assertTextOption('orderingKey', orderingKey)
  return {
    subscription,
    tenantId,
    orderingKey,
    by,
    reason,
    skipFailed: booleanOption('skipFailed', given.skipFailed, false),
  }
}
