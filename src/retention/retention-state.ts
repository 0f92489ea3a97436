import type { Executor } from '../database/database.ts'
import { readPolicy, type RetentionPolicy } from './policy.ts'

/** What keeps a partition from being dropped. */
export interface PartitionHold {
  /**
   * `undispatched`: in the outbox. `scheduled`: not due yet. `waiting`: in a job of the queue, not tried yet or running. `ordered`: behind
   * earlier events of its key. `retrying`, `dead`, `blocked`, `parked`: as `bus.failing` says. `operation`: a replay, a redrive or the like
   * is under way, or paused, and may select any event.
   */
  readonly kind:
    | 'undispatched'
    | 'scheduled'
    | 'waiting'
    | 'ordered'
    | 'retrying'
    | 'dead'
    | 'blocked'
    | 'parked'
    | 'operation'
  readonly subscription: string | undefined
  /** Counted up to 10,001. */
  readonly count: number
  /** Which operations. */
  readonly detail: string | undefined
}

/** A range of the log, which each table of the log and the ledger has a partition of. */
export interface LogRange {
  /** Such as `2026_09` for a month and `2026_09_17` for a day. */
  readonly name: string
  readonly from: Date
  /** Not included. */
  readonly to: Date
  readonly lower: string
  readonly upper: string
  /** The tables that have a partition of it. */
  readonly tables: readonly string[]
  /** By the statistics of the server. 0 if it has none yet. */
  readonly estimatedEventCount: number
  /** Of all its tables with their indexes. */
  readonly bytes: number
  /** Days since its last event could have been published; negative if it has not ended. */
  readonly ageDays: number
  /** Whether the policy says that it goes, or that a part of the ledger goes. */
  readonly isDue: boolean
}

/** The state of retention in this database. */
export interface RetentionState {
  readonly policy: RetentionPolicy
  /** Oldest first. */
  readonly ranges: readonly LogRange[]
  /** The oldest range that should go, and what holds it back; or the one that goes next, when it is due. Undefined if the log is kept. */
  readonly next:
    { readonly range: LogRange; readonly dueAt: Date; readonly holds: readonly PartitionHold[] } | undefined
  /** Tables whose default partition has rows. They become partitions by themselves; `mixed` ones stay. */
  readonly defaultPartitions: readonly string[]
  /** The log was dropped up to here, but for what was held back. */
  readonly droppedBefore: Date | undefined
  readonly lastRoundAt: Date | undefined
  /** Why the last round failed. Undefined if it did not. */
  readonly lastError: string | undefined
}

interface RangeRow extends Record<string, unknown> {
  readonly lower_bound: string
  readonly upper_bound: string
  readonly name: string
  readonly from_ms: number
  readonly to_ms: number
  readonly tables: readonly string[]
  readonly estimate: string
  readonly bytes: string
  readonly age_days: number
  readonly due: boolean
}

/** The ranges of the log, oldest first. */
export async function readRanges(executor: Executor): Promise<LogRange[]> {
  const { rows } = await executor.query<RangeRow>(
    `select p.lower_bound, p.upper_bound, min(substr(p.partition_name, length(t.parent) + 2)) as name,
       bus.uuid_ms(p.lower_bound)::float8 as from_ms, bus.uuid_ms(p.upper_bound)::float8 as to_ms,
       array_agg(t.parent order by t.ordinal) as tables,
       max(case when t.parent = 'events' then greatest(c.reltuples, 0) else 0 end)::bigint as estimate,
       sum(pg_total_relation_size(c.oid))::bigint as bytes,
       (extract(epoch from clock_timestamp()) * 1000 - bus.uuid_ms(p.upper_bound))::float8 / 86400000 as age_days,
       coalesce(bool_or((extract(epoch from clock_timestamp()) * 1000 - bus.uuid_ms(p.upper_bound)) / 86400000 > t.days), false) as due
     from (select bus.retention_policy() as policy offset 0) r
     cross join lateral (values
       ('events', 1, (r.policy ->> 'logDays')::int), ('receipts', 2, (r.policy ->> 'ledgerDays')::int),
       ('receipt_batches', 3, (r.policy ->> 'ledgerDays')::int), ('attempts', 4, (r.policy ->> 'attemptsDays')::int)) as t (parent, ordinal, days)
     cross join lateral bus.partitions_of(t.parent) p
     join pg_class c on c.oid = to_regclass('bus.' || quote_ident(p.partition_name))
     group by p.lower_bound, p.upper_bound
     order by p.lower_bound`,
  )
  return rows.map((row) => ({
    name: row.name,
    from: new Date(row.from_ms),
    to: new Date(row.to_ms),
    lower: row.lower_bound,
    upper: row.upper_bound,
    tables: row.tables,
    estimatedEventCount: Number(row.estimate),
    bytes: Number(row.bytes),
    ageDays: Math.round(row.age_days * 100) / 100,
    isDue: row.due,
  }))
}

/**
 * What holds a range back. What is cheap to find is looked for first: only if there is nothing of it are the events of the range read for
 * those that were scheduled.
 */
export async function readHolds(
  executor: Executor,
  { lower, upper }: Pick<LogRange, 'lower' | 'upper'>,
  { deadLettersDays }: RetentionPolicy,
): Promise<{ readonly holds: readonly PartitionHold[]; readonly scheduledUntil: string | undefined }> {
  const holds = await holdsOf(executor, { lower, upper }, undefined, deadLettersDays)
  if (holds.length > 0) return { holds, scheduledUntil: undefined }
  const { rows } = await executor.query<{ until: string | null }>(
    'select bus.scheduled_until($1, $2)::text as until',
    [lower, upper],
  )
  const until = rows[0]?.until
  if (until === null || until === undefined) return { holds, scheduledUntil: undefined }
  return { holds: await holdsOf(executor, { lower, upper }, until, deadLettersDays), scheduledUntil: until }
}

async function holdsOf(
  executor: Executor,
  { lower, upper }: Pick<LogRange, 'lower' | 'upper'>,
  until: string | undefined,
  deadLettersDays: number | null,
): Promise<PartitionHold[]> {
  const { rows } = await executor.query<{
    kind: PartitionHold['kind']
    subscription: string | null
    held_count: string
    detail: string | null
  }>(
    'select kind, subscription, held_count, detail from bus.range_holds($1, $2, $3, now() - make_interval(days => $4::int))',
    [lower, upper, until ?? null, deadLettersDays],
  )
  return rows.map(({ kind, subscription, held_count, detail }) => ({
    kind,
    subscription: subscription ?? undefined,
    count: Number(held_count),
    detail: detail ?? undefined,
  }))
}

/**
 * The state of retention: what goes next, and what holds it back. Reads the holds of one range only.
 *
 * @throws a {@link DatabaseError} `BUS_PERMISSION_DENIED` if the role may not read it
 */
export async function readRetentionState(executor: Executor): Promise<RetentionState> {
  const policy = await readPolicy(executor)
  const ranges = await readRanges(executor)
  const { rows } = await executor.query<{
    dropped_before: Date | null
    round_ended_at: Date | null
    error: string | null
    default_events: number
    default_deliveries: number
  }>(
    `select s.dropped_before, s.round_ended_at, s.error, p.default_events, p.default_deliveries
     from bus.retention_state s cross join bus.partition_state() p`,
  )
  const [state] = rows
  const first = ranges.find(({ tables }) => tables.includes('events'))
  const range = ranges.find(({ isDue }) => isDue) ?? (policy.logDays === null ? undefined : first)
  const days = range === undefined ? null : shortestDays(policy, range)
  const next =
    range === undefined || days === null
      ? undefined
      : {
          range,
          dueAt: new Date(range.to.getTime() + days * 86_400_000),
          holds: range.isDue ? (await readHolds(executor, range, policy)).holds : [],
        }
  return {
    policy,
    ranges,
    next,
    defaultPartitions: [
      ...((state?.default_events ?? 0) > 0 ? ['events'] : []),
      ...((state?.default_deliveries ?? 0) > 0 ? ['ledger'] : []),
    ],
    droppedBefore: state?.dropped_before ?? undefined,
    lastRoundAt: state?.round_ended_at ?? undefined,
    lastError: state?.error ?? undefined,
  }
}

/** When the first of its tables goes. */
function shortestDays(policy: RetentionPolicy, { tables }: LogRange): number | null {
  const days = tables.map((table) =>
    table === 'events' ? policy.logDays : table === 'attempts' ? policy.attemptsDays : policy.ledgerDays,
  )
  return days.reduce<number | null>(
    (least, each) => (each === null ? least : Math.min(least ?? each, each)),
    null,
  )
}
