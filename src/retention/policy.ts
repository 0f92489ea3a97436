import type { Executor } from '../database/database.ts'
import { limits } from '../foundation/limits.ts'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../foundation/options.ts'
import type { ArchiveStore } from './archive/archive-store.ts'

/**
 * How long the data of the bus is kept. Each time is in days, 1 to 36,500, and counts from when an event was published.
 *
 * The policy belongs to the database, not to one process: a start records what its service asks for, and of several services the longest
 * time counts. The log is dropped by whole partitions, so it is kept up to a partition longer, and anything that is undelivered holds its
 * partition back.
 */
export interface RetentionOptions {
  /** Events. @defaultValue they are kept for ever */
  readonly logDays?: number | undefined
  /** Receipts: which subscription was given which event when. At most `logDays` is kept. @defaultValue as long as the events */
  readonly ledgerDays?: number | undefined
  /** Failed attempts, and those that succeeded after them. At most `ledgerDays` is kept. @defaultValue as long as the receipts */
  readonly attemptsDays?: number | undefined
  /**
   * How long an `eventId` or `idempotencyKey` is remembered. An event that is published with the same one later is a new event.
   * @defaultValue `30`
   */
  readonly keysDays?: number | undefined
  /** The counts of each minute, for statistics. @defaultValue `30` */
  readonly rollupsDays?: number | undefined
  /** The record of changes by people and programs. @defaultValue `365` */
  readonly auditDays?: number | undefined
  /** Operations that have ended. @defaultValue `90` */
  readonly operationsDays?: number | undefined
  /** Messages of `bus.quarantine`, since they came last or were decided about. @defaultValue `90` */
  readonly quarantineDays?: number | undefined
  /**
   * How long a dead letter holds the partition of its event back, since it failed. Afterwards it is deleted together with its event.
   * @defaultValue for ever
   */
  readonly deadLettersDays?: number | undefined
  /**
   * Where a partition is copied to before it is dropped: `archiveToFolder(path)`, or an object of your own that writes and reads files.
   * Nothing is dropped before it was read back and compared. Once one service archives, only processes with this option drop partitions.
   * @defaultValue dropped partitions are gone
   */
  readonly archive?: ArchiveStore | undefined
}

/** What the services together have asked for, in days. Null: for ever. */
export interface RetentionPolicy {
  readonly logDays: number | null
  readonly ledgerDays: number | null
  readonly attemptsDays: number | null
  readonly keysDays: number
  readonly rollupsDays: number
  readonly auditDays: number
  readonly operationsDays: number
  readonly quarantineDays: number
  readonly deadLettersDays: number | null
  readonly archive: boolean
}

const times = [
  'logDays',
  'ledgerDays',
  'attemptsDays',
  'keysDays',
  'rollupsDays',
  'auditDays',
  'operationsDays',
  'quarantineDays',
  'deadLettersDays',
] as const

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveRetention(given: RetentionOptions | undefined): RetentionOptions {
  if (given === undefined) return Object.freeze({})
  assertObject('`retention` to be options like { logDays, archive }', given)
  refuseUnknownKeys(given, [...times, 'archive'], 'retention')
  const resolved: Partial<Record<(typeof times)[number], number>> = {}
  for (const name of times) {
    const value = given[name]
    if (value === undefined) continue
    resolved[name] = integerOption(`retention.${name}`, value, {
      min: 1,
      max: limits.retentionDays,
      default: 0,
    })
  }
  const { archive } = given
  if (archive !== undefined && archive !== null) {
    for (const method of ['write', 'read'] as const)
      if (typeof (archive as Partial<ArchiveStore>)[method] !== 'function')
        throw invalidOption(
          `Expected \`retention.archive\` to have a method \`${method}\``,
          'retention.archive',
        )
    if (archive.format !== undefined && archive.format !== 'ndjson' && archive.format !== 'parquet')
      throw invalidOption(
        `Expected the \`format\` of \`retention.archive\` to be "ndjson" or "parquet", got ${describe(archive.format)}`,
        'retention.archive',
      )
  }
  return Object.freeze({ ...resolved, archive: archive ?? undefined })
}

/** Records what a service asks for, or that it asks for nothing. Repeating it changes nothing. */
export async function declarePolicy(
  executor: Executor,
  service: string,
  options: RetentionOptions,
): Promise<void> {
  const { archive, ...asked } = options
  const policy = archive === undefined ? asked : { ...asked, archive: true }
  if (Object.keys(policy).length === 0) {
    await executor.query('delete from bus.retention_policies where service = $1', [service])
    return
  }
  await executor.query(
    `insert into bus.retention_policies as known (service, policy) values ($1, $2)
     on conflict (service) do update set policy = excluded.policy, declared_at = excluded.declared_at
     where known.policy is distinct from excluded.policy`,
    [service, JSON.stringify(policy)],
  )
}

/** The policy that applies in this database. */
export async function readPolicy(executor: Executor): Promise<RetentionPolicy> {
  const { rows } = await executor.query<{ policy: RetentionPolicy }>(
    'select bus.retention_policy() as policy',
  )
  if (rows[0] === undefined) throw new Error('bus.retention_policy() returned no row')
  return rows[0].policy
}
