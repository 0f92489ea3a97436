import { limits } from '../../foundation/limits.ts'
import { assertObject, assertTextOption, integerOption, refuseUnknownKeys } from '../../foundation/options.ts'
import type { Database } from '../../database/database.ts'
import { keepFailures, type AttemptFailure } from '../attempts/failure.ts'

/** An event whose last attempt failed. */
export interface DeadLetter {
  /** The id of the event in the log. */
  readonly id: string
  readonly subscription: string
  /** Undefined where the event is not in the log. */
  readonly tenantId: string | undefined
  /**
   * The pg-boss job whose last attempt failed: the `source_root_id` of the dead letter in pg-boss. The event's id if it was parked without
   * an attempt.
   */
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

/** Which dead letters to read. */
export interface DeadLetterFilter {
  readonly subscription?: string | undefined
  /** 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
}

/** The dead letters of one subscription whose errors are alike: the same name, code and message, up to numbers and quoted text. */
export interface DeadLetterGroup {
  readonly subscription: string
  /** The same for all errors that are alike. Undefined for dead letters of an earlier version. */
  readonly fingerprint: string | undefined
  readonly errorName: string | undefined
  readonly errorCode: string | undefined
  /** The message of the newest one. */
  readonly message: string | undefined
  readonly count: number
  readonly firstAt: Date
  readonly lastAt: Date
  /** The newest one: the id of its event. */
  readonly newestId: string
}

/** Reads the dead letters of one tenant. */
export interface TenantDeadLetters {
  /** The dead letters, oldest first; of one subscription if given. */
  list: (filter?: DeadLetterFilter) => Promise<DeadLetter[]>
}

/** Reads the dead letters of all subscriptions. */
export interface DeadLetters extends TenantDeadLetters {
  /** What they failed with: the groups with the most dead letters first. */
  groups: (filter?: DeadLetterFilter) => Promise<DeadLetterGroup[]>
}

/** As `bus.dead_letters` returns it. */
export interface DeadLetterRow extends Record<string, unknown> {
  readonly event_id: string
  readonly subscription: string
  readonly job_id: string
  readonly attempts: number
  readonly failures: readonly AttemptFailure[]
  readonly dead_at: Date
  readonly tenant_id: string | null
  readonly ordering_key: string | null
  readonly key_state: 'blocked' | 'parked' | null
}

interface GroupRow extends Record<string, unknown> {
  readonly subscription: string
  readonly fingerprint: string | null
  readonly error_name: string | null
  readonly error_code: string | null
  readonly message: string | null
  readonly letter_count: string
  readonly first_at: Date
  readonly last_at: Date
  readonly event_id: string
}

export function createDeadLetters(database: Database): DeadLetters {
  return {
    async list(filter = {}) {
      const { subscription, limit } = checkFilter(filter, 'deadLetters.list')
      const { rows } = await database.query<DeadLetterRow>(
        'select * from bus.dead_letters($1::text, null, $2::int)',
        [subscription, limit],
      )
      return rows.map(toDeadLetter)
    },
    async groups(filter = {}) {
      const { subscription, limit } = checkFilter(filter, 'deadLetters.groups')
      const { rows } = await database.query<GroupRow>(
        'select * from bus.dead_letter_groups($1::text, $2::int)',
        [subscription, limit],
      )
      return rows.map((row) => ({
        subscription: row.subscription,
        fingerprint: row.fingerprint ?? undefined,
        errorName: row.error_name ?? undefined,
        errorCode: row.error_code ?? undefined,
        message: row.message ?? undefined,
        count: Number(row.letter_count),
        firstAt: row.first_at,
        lastAt: row.last_at,
        newestId: row.event_id,
      }))
    },
  }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function checkFilter(
  filter: DeadLetterFilter,
  method: string,
): { readonly subscription: string | null; readonly limit: number } {
  assertObject('a filter like { subscription, limit }', filter)
  refuseUnknownKeys(filter, ['subscription', 'limit'], method)
  const { subscription, limit } = filter
  const count = integerOption('limit', limit, limits.listLimit)
  if (subscription !== undefined)
    assertTextOption('subscription', subscription, { max: limits.subscriptionNameLength })
  return { subscription: subscription ?? null, limit: count }
}

export function toDeadLetter(row: DeadLetterRow): DeadLetter {
  const { tenant_id: tenantId, ordering_key: orderingKey, key_state: state } = row
  return {
    id: row.event_id,
    subscription: row.subscription,
    tenantId: tenantId ?? undefined,
    jobId: row.job_id,
    attempts: row.attempts,
    failures: keepFailures(row.failures).map((failure) => ({
      ...failure,
      at: new Date(failure.at).toISOString(),
    })),
    deadAt: row.dead_at,
    blockedKey:
      tenantId === null || orderingKey === null || state === null
        ? undefined
        : { tenantId, orderingKey, state },
  }
}
