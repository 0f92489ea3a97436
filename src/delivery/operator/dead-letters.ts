import type { Database, Executor } from '../../database/database.ts'
import { refuseUnknownSubscription } from '../registry/find-subscription.ts'
import { keepFailures, type AttemptFailure } from '../attempts/failure.ts'
import {
  checkFilter,
  checkGroupFilter,
  type DeadLetterFilter,
  type DeadLetterGroupFilter,
  type DeadLetterState,
  type StoredFilter,
  type TenantDeadLetterFilter,
  type TenantDeadLetterGroupFilter,
} from './dead-letter-filter.ts'
import type { DeadLetterRow } from './dead-letter-row.ts'
import { readReplayLetters } from './replay-letters.ts'

/** An event whose last attempt failed. */
export interface DeadLetter {
  /** The id of the event in the log. */
  readonly id: string
  readonly subscription: string
  /** Undefined where the event is not in the log. */
  readonly tenantId: string | undefined
  /** Its type. Undefined where the event is not in the log. */
  readonly type: string | undefined
  readonly state: DeadLetterState
  /**
   * The pg-boss job whose last attempt failed: the `source_root_id` of the dead letter in pg-boss. The event's id if it was parked without
   * an attempt.
   */
  readonly jobId: string
  /** The number of attempts. */
  readonly attempts: number
  /** The failures that are known: the first and the latest ones. */
  readonly failures: readonly AttemptFailure[]
  /** The same for all errors that are alike. Undefined without an attempt, and for dead letters of an earlier version. */
  readonly fingerprint: string | undefined
  readonly deadAt: Date
  /**
   * Set while the event blocks its key, or is parked behind the event that does: release the key to deliver it. See
   * {@link BlockedKeys}.
   */
  readonly blockedKey: BlockedKeyName | undefined
  /** The replay that it failed in: then it is no dead letter of the first delivery, and cannot be redriven. */
  readonly replayId: string | undefined
  /** For `after`: where the next page begins. */
  readonly cursor: string
}

/** Identifies a waiting key. */
export interface BlockedKeyName {
  readonly tenantId: string
  readonly orderingKey: string
  readonly state: 'blocked' | 'parked'
}

/** The dead letters whose errors are alike: the same name, code and message, up to numbers and quoted text. */
export interface DeadLetterGroup {
  /** The same for all errors that are alike. Undefined for dead letters of an earlier version. */
  readonly fingerprint: string | undefined
  readonly errorName: string | undefined
  readonly errorCode: string | undefined
  /** The message of the newest one. */
  readonly message: string | undefined
  readonly count: number
  readonly firstAt: Date
  readonly lastAt: Date
  /** The subscriptions that have them, by name. */
  readonly subscriptions: readonly string[]
  /** Tenants that have them. The count stops at 10,000. */
  readonly tenantCount: number
  readonly isTenantCountPartial: boolean
  /** The newest one: the id of its event, and its subscription. */
  readonly newestId: string
  readonly newestSubscription: string
}

/** Reads the dead letters of one tenant. */
export interface TenantDeadLetters {
  /** The dead letters, oldest first. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_SUBSCRIPTION_NOT_FOUND` */
  list: (filter?: TenantDeadLetterFilter) => Promise<DeadLetter[]>
  /**
   * What they failed with, in all subscriptions together: the groups with the most dead letters first.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
   */
  groups: (filter?: TenantDeadLetterGroupFilter) => Promise<DeadLetterGroup[]>
}

/** Reads the dead letters of all subscriptions. */
export interface DeadLetterReads extends TenantDeadLetters {
  /**
   * The dead letters, oldest first; or those of a replay.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_OPERATION_NOT_FOUND`
   */
  list: (filter?: DeadLetterFilter) => Promise<DeadLetter[]>
  /** Like the groups of one tenant. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_SUBSCRIPTION_NOT_FOUND` */
  groups: (filter?: DeadLetterGroupFilter) => Promise<DeadLetterGroup[]>
}

interface GroupRow extends Record<string, unknown> {
  readonly fingerprint: string | null
  readonly error_name: string | null
  readonly error_code: string | null
  readonly message: string | null
  readonly letter_count: string
  readonly first_at: Date
  readonly last_at: Date
  readonly subscriptions: readonly string[]
  readonly tenant_count: number
  readonly event_id: string
  readonly subscription: string
}

const maxTenantCount = 10_000

export function createDeadLetterReads(database: Database): DeadLetterReads {
  return {
    async list(filter = {}) {
      const { stored, replayId, limit } = checkFilter(filter, 'deadLetters.list')
      const letters =
        replayId === undefined
          ? await readDeadLetters(database, 'bus.dead_letters', stored, limit)
          : (await readReplayLetters(database, replayId, stored, limit)).map((row) =>
              toDeadLetter(row, replayId),
            )
      if (letters.length === 0) await refuseUnknownSubscription(database, stored.subscription)
      return letters
    },
    async groups(filter = {}) {
      const { stored, limit } = checkGroupFilter(filter)
      const groups = await readGroups(database, 'bus.dead_letter_groups', stored, limit)
      if (groups.length === 0) await refuseUnknownSubscription(database, stored.subscription)
      return groups
    },
  }
}

/** @param source - the SQL function to call: the operator's, or the one of the current tenant */
export async function readGroups(
  executor: Executor,
  source: 'bus.dead_letter_groups' | 'bus.tenant_dead_letter_groups',
  filter: StoredFilter,
  limit: number,
): Promise<DeadLetterGroup[]> {
  const { rows } = await executor.query<GroupRow>(`select * from ${source}($1::jsonb, $2::int)`, [
    JSON.stringify(filter),
    limit,
  ])
  return rows.map((row) => ({
    fingerprint: row.fingerprint ?? undefined,
    errorName: row.error_name ?? undefined,
    errorCode: row.error_code ?? undefined,
    message: row.message ?? undefined,
    count: Number(row.letter_count),
    firstAt: row.first_at,
    lastAt: row.last_at,
    subscriptions: row.subscriptions,
    tenantCount: Math.min(row.tenant_count, maxTenantCount),
    isTenantCountPartial: row.tenant_count > maxTenantCount,
    newestId: row.event_id,
    newestSubscription: row.subscription,
  }))
}

/** @param source - the SQL function to call: the operator's, or the one of the current tenant */
export async function readDeadLetters(
  executor: Executor,
  source: 'bus.dead_letters' | 'bus.tenant_dead_letters',
  filter: StoredFilter,
  limit: number,
): Promise<DeadLetter[]> {
  const { rows } = await executor.query<DeadLetterRow>(`select * from ${source}($1::jsonb, $2::int)`, [
    JSON.stringify(filter),
    limit,
  ])
  return rows.map((row) => toDeadLetter(row, undefined))
}

function toDeadLetter(row: DeadLetterRow, replayId: string | undefined): DeadLetter {
  const { tenant_id: tenantId, ordering_key: orderingKey, key_state: state } = row
  return {
    id: row.event_id,
    subscription: row.subscription,
    tenantId: tenantId ?? undefined,
    type: row.type ?? undefined,
    state: row.state,
    jobId: row.job_id,
    attempts: row.attempts,
    failures: keepFailures(row.failures).map((failure) => ({
      ...failure,
      at: new Date(failure.at).toISOString(),
    })),
    fingerprint: row.fingerprint ?? undefined,
    deadAt: row.dead_at,
    blockedKey:
      tenantId === null || orderingKey === null || state === null
        ? undefined
        : { tenantId, orderingKey, state },
    replayId,
    cursor: row.place,
  }
}
