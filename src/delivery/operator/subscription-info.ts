import type { Database } from '../../database/database.ts'
import type { OptionOverrides } from '../flow-control/overrides.ts'
import { isPausedSql, overridesSql } from '../flow-control/subscription-state.ts'
import { queueLagSql } from '../jobs/queue-state/queue-lag.ts'
import { countWaitingJobsSql } from '../jobs/queue-state/waiting-jobs.ts'
import { liveSeconds } from '../registry/declarations.ts'
import type { ResolvedRetry } from '../subscriptions/retry-options.ts'
import type { RegisteredOptions } from '../subscriptions/subscription.ts'

/** Options that an operator has set at run time. */
export interface SubscriptionOverrides {
  /** Undefined where the code's option counts. */
  readonly concurrency?: number
  readonly retry?: ResolvedRetry
  readonly paused?: true
  readonly by: string
  readonly reason: string | undefined
  readonly at: Date
  /** From then on the options of the code count again. */
  readonly expiresAt: Date
}

/** A subscription as the database knows it, whether or not its service is running. */
export interface SubscriptionInfo {
  readonly name: string
  /** The service that owns it. */
  readonly service: string
  /** The names and patterns of its events. */
  readonly events: readonly string[]
  readonly where: string | undefined
  /** The options of its newest active declaration: what the code says. */
  readonly options: RegisteredOptions
  /**
   * `'paused'`: by a person, for good or until a time, whatever the state of its circuit breaker. `'circuit open'`: every attempt failed, and
   * single events are tried until one succeeds. `'unserved'`: neither, but no process runs it, and its events wait
   * until one does.
   */
  readonly state: 'active' | 'paused' | 'circuit open' | 'unserved'
  /** When, by whom and why it was paused, by `pause` or by `setOptions`; undefined if it is not paused. */
  readonly pause:
    { readonly at: Date; readonly by: string | undefined; readonly reason: string | undefined } | undefined
  /**
   * When its circuit breaker opened, the error of the last attempt, and when the next event is tried; undefined if it
   * is closed.
   */
  readonly circuit:
    { readonly openedAt: Date; readonly reason: string; readonly nextProbeAt: Date } | undefined
  /**
   * What an operator has set with `setOptions` in place of `options`, until when, by whom and why. Undefined where nothing is set.
   */
  readonly overrides: SubscriptionOverrides | undefined
  /** Events that wait for this subscription, including those that wait for another attempt. The count stops at 2,500 jobs, each of up to `batchSize` events. */
  readonly waitingCount: number
  /** Whether more events wait than were counted. */
  readonly isWaitingCountPartial: boolean
  /** For how long its first event has been due that may run now: 0 if none waits. */
  readonly lagSeconds: number
  /** Whether that is longer than its `lagLimitSeconds`, though it is neither paused nor halted nor unserved. */
  readonly isBehind: boolean
  /** Processes that run it now. With none, its events wait. */
  readonly instanceCount: number
  /**
   * Since when events wait that the running processes do not cover: they need a version of the code that is not
   * deployed yet, or was rolled back. Undefined if there are none.
   */
  readonly uncoveredSince: Date | undefined
  /** Since when events are kept for it. */
  readonly registeredAt: Date
}

/** Maximum number of waiting jobs of a subscription that are counted: of a hundred events each, some 20 ms. */
const maxCountedJobs = 2500

/** Maximum number of events of keys. */
const maxCountedKeyEvents = 10_000

interface SubscriptionRow extends Record<string, unknown> {
  readonly id: number
  readonly name: string
  readonly service: string
  readonly patterns: readonly string[]
  readonly where: string | null
  readonly options: RegisteredOptions
  readonly is_paused: boolean
  readonly paused_at: Date | null
  readonly paused_by: string | null
  readonly pause_reason: string | null
  readonly circuit_opened_at: Date | null
  readonly circuit_reason: string | null
  readonly circuit_probe_at: Date | null
  readonly created_at: Date
  readonly overrides: OptionOverrides | null
  readonly overridden_by: string
  readonly override_reason: string | null
  readonly overridden_at: Date
  readonly overrides_until: Date
  readonly instance_count: number
  readonly uncovered_since: Date | null
  readonly is_partial: boolean
  readonly event_count: number
}

/** The subscriptions by name, or the one of a name. */
export async function readSubscriptions(database: Database, name?: string): Promise<SubscriptionInfo[]> {
  // The events of a key with a job are counted in `ordered_events`, not in the job.
  const { rows } = await database.query<SubscriptionRow>(
    `with waiting as materialized (
       ${countWaitingJobsSql(database, maxCountedJobs)}
     ), live as (
       select d.subscription_id as id, count(distinct i.id)::int as instances
       from bus.instances i cross join lateral unnest(i.declarations) as x (id) join bus.declarations d on d.id = x.id
       where i.seen_at > clock_timestamp() - ${liveSeconds} * interval '1 second'
       group by 1
     )
     select coalesce(live.instances, 0) as instance_count, s.uncovered_since, s.id, s.name, s.service, s.patterns, s."where", s.options, ${isPausedSql} as is_paused, s.paused_at, s.paused_by, s.pause_reason,
       s.circuit_opened_at, s.circuit_reason, s.circuit_probe_at, s.created_at,
       ${overridesSql} as overrides, s.overridden_by, s.override_reason, s.overridden_at, s.overrides_until,
       waiting.jobs >= ${maxCountedJobs} or lined.events >= ${maxCountedKeyEvents} as is_partial, (waiting.events + lined.events)::int as event_count
     from bus.subscriptions s
     join waiting using (id)
     left join live using (id)
     cross join lateral (
       select count(*) as events from (
         select from bus.ordered_keys k join bus.ordered_events e on e.key_id = k.id and e.seq > k.done_seq
         where k.subscription_id = s.id limit ${maxCountedKeyEvents}
       ) e
     ) lined
     where $1::text is null or s.name = $1
     order by s.name`,
    [name ?? null],
  )
  const lags = await readLags(database, rows)
  return rows.map((row) => toInfo(row, lags.get(row.id) ?? 0))
}

/** In seconds, by id: one statement for all. */
async function readLags(
  database: Database,
  subscriptions: readonly SubscriptionRow[],
): Promise<ReadonlyMap<number, number>> {
  if (subscriptions.length === 0) return new Map()
  const { rows } = await database.query<{ id: number; due_ms: number | null; now_ms: number }>(
    `select l.id, l.due_ms, (extract(epoch from clock_timestamp()) * 1000)::float8 as now_ms from (${queueLagSql(database, subscriptions)}) l`,
  )
  return new Map(
    rows.map(({ id, due_ms, now_ms }) => [id, due_ms === null ? 0 : Math.max(0, now_ms - due_ms) / 1000]),
  )
}

function toInfo(row: SubscriptionRow, lagSeconds: number): SubscriptionInfo {
  const { paused_at: pausedAt, circuit_opened_at: openedAt } = row
  const state = stateOf(row)
  const { lagLimitSeconds } = row.options
  return {
    name: row.name,
    service: row.service,
    events: row.patterns,
    where: row.where ?? undefined,
    options: row.options,
    state,
    pause:
      !row.is_paused || pausedAt === null
        ? undefined
        : { at: pausedAt, by: row.paused_by ?? undefined, reason: row.pause_reason ?? undefined },
    circuit:
      openedAt === null
        ? undefined
        : { openedAt, reason: row.circuit_reason ?? '', nextProbeAt: row.circuit_probe_at ?? openedAt },
    overrides: overridesOf(row),
    waitingCount: row.event_count,
    isWaitingCountPartial: row.is_partial,
    lagSeconds,
    isBehind: state === 'active' && lagLimitSeconds !== undefined && lagSeconds > lagLimitSeconds,
    instanceCount: row.instance_count,
    uncoveredSince: row.uncovered_since ?? undefined,
    registeredAt: row.created_at,
  }
}

function stateOf(row: SubscriptionRow): SubscriptionInfo['state'] {
  if (row.is_paused) return 'paused'
  if (row.circuit_opened_at !== null) return 'circuit open'
  return row.instance_count === 0 ? 'unserved' : 'active'
}

function overridesOf(row: SubscriptionRow): SubscriptionOverrides | undefined {
  if (row.overrides === null || Object.keys(row.overrides).length === 0) return undefined
  return {
    ...row.overrides,
    by: row.overridden_by,
    reason: row.override_reason ?? undefined,
    at: row.overridden_at,
    expiresAt: row.overrides_until,
  }
}
