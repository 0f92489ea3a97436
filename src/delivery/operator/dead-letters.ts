import { limits } from '../../foundation/limits.ts'
import { assertObject, assertTextOption, integerOption, refuseUnknownKeys } from '../../foundation/options.ts'
import type { Database } from '../../database/database.ts'
import type { AttemptFailure } from '../attempts/failure.ts'
import { readDeadLetters, type DeadLetterRow } from '../jobs/dead-letters.ts'

/** An event whose last attempt failed. */
export interface DeadLetter {
  /** The id of the event in the log. */
  readonly id: string
  readonly subscription: string
  /** The pg-boss job that is the dead letter, or the event's id if it was parked without an attempt. */
  readonly jobId: string
  /** The number of attempts. */
  readonly attempts: number
  /** The failures that are known: the first and the latest ones. */
  readonly failures: readonly AttemptFailure[]
  readonly deadAt: Date
  /**
   * Set while the event blocks its key, or is parked behind the event that does: release the key to deliver it. See
   * {@link BlockedKeys}.
   */
  readonly blockedKey: BlockedKeyName | undefined
}

/** Identifies a waiting key. */
export interface BlockedKeyName {
  readonly tenantId: string
  readonly orderingKey: string
  readonly state: 'blocked' | 'parked'
}

/** Reads the dead letters of all subscriptions. */
export interface DeadLetters {
  /** The dead letters, oldest first, up to `limit` (1 to 1,000, default 100); of one subscription if given. */
  list: (filter?: {
    readonly subscription?: string | undefined
    readonly limit?: number | undefined
  }) => Promise<DeadLetter[]>
}

export function createDeadLetters(database: Database): DeadLetters {
  return {
    async list(filter = {}) {
      assertObject('a filter like { subscription, limit }', filter)
      refuseUnknownKeys(filter, ['subscription', 'limit'], 'deadLetters.list')
      const { subscription, limit } = filter
      const count = integerOption('limit', limit, limits.listLimit)
      if (subscription !== undefined)
        assertTextOption('subscription', subscription, { max: limits.subscriptionNameLength })
      const rows = await readDeadLetters(database, subscription, count)
      return rows.map(toDeadLetter)
    },
  }
}

export function toDeadLetter({
  id: jobId,
  subscription,
  data,
  source_retry_count,
  source_output,
  created_on,
  tenant_id: tenantId,
  ordering_key: orderingKey,
  key_state: state,
}: DeadLetterRow): DeadLetter {
  const blockedKey =
    tenantId === null || orderingKey === null || state === null ? undefined : { tenantId, orderingKey, state }
  const id = data.eventIds[0] ?? ''
  // Parked behind a failed event.
  if (blockedKey !== undefined && source_retry_count === null)
    return { id, subscription, jobId, attempts: 0, failures: [], deadAt: created_on, blockedKey }
  const before = data.attempts ?? 0
  const known = source_output?.failures ?? data.failures ?? []
  const attempts = source_output?.attempts ?? before + (source_retry_count ?? 0) + 1
  // pg-boss ended the last attempt because its worker was lost: its only trace is a message.
  const lost = source_output?.value?.message
  const failures =
    lost === undefined
      ? known
      : [...known, { attempt: attempts, at: created_on.toISOString(), name: 'WorkerLost', message: lost }]
  return { id, subscription, jobId, attempts, failures, deadAt: created_on, blockedKey }
}
