import { ConfigurationError } from '../../foundation/errors.ts'
import { limits } from '../../foundation/limits.ts'
import { assertTextOption, describe, refuseUnknownKeys, invalidOption } from '../../foundation/options.ts'
import type { Database } from '../../database/database.ts'
import { countWaitingJobsSql } from '../jobs/queue-state/waiting-jobs.ts'
import { pauseSubscription, resumeSubscription } from '../flow-control/subscription-state.ts'
import { liveSeconds } from '../registry/declarations.ts'
import type { RegisteredOptions } from '../subscriptions/subscription.ts'

/** A subscription as the database knows it, whether or not its service is running. */
export interface SubscriptionInfo {
  readonly name: string
  /** The service that owns it. */
  readonly service: string
  /** The names and patterns of its events. */
  readonly events: readonly string[]
  readonly where: string | undefined
  /** The options of its newest active declaration. */
  readonly options: RegisteredOptions
  /**
   * `'paused'`: by a person, whatever the state of its circuit breaker. `'circuit open'`: every attempt failed, and
   * single events are tried until one succeeds. `'unserved'`: neither, but no process runs it, and its events wait
   * until one does.
   */
  readonly state: 'active' | 'paused' | 'circuit open' | 'unserved'
  /** When, by whom and why it was paused; undefined if it is not paused. */
  readonly pause:
    { readonly at: Date; readonly by: string | undefined; readonly reason: string | undefined } | undefined
  /**
   * When its circuit breaker opened, the error of the last attempt, and when the next event is tried; undefined if it
   * is closed.
   */
  readonly circuit:
    { readonly openedAt: Date; readonly reason: string; readonly nextProbeAt: Date } | undefined
  /** Events that wait for this subscription, including those that wait for another attempt. The count stops at 10,000 jobs. */
  readonly waitingCount: number
  /** Whether more events wait than were counted. */
  readonly isWaitingCountPartial: boolean
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

/** Lists, pauses and resumes the subscriptions of all services. */
export interface Subscriptions {
  /** All subscriptions of the database, by name. Waiting events are counted for up to 10,000 jobs of each. */
  list: () => Promise<SubscriptionInfo[]>
  /**
   * Pauses a subscription in every process: in this one before the call resolves; in others immediately if
   * notifications arrive, otherwise within 5 seconds. Running handlers finish; events that were not started are
   * requeued without counting an attempt. Events are kept. It stays paused until it is resumed, even across restarts.
   * Works from any process, started or not. Resolves to `true` if this call paused it, and to `false`, changing
   * nothing, if it was already paused.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  pause: (name: string, options?: PauseOptions) => Promise<boolean>
  /**
   * Resumes a subscription that is paused, or whose circuit breaker is open. Resolves to `true` if it was either.
   * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`, `BUS_INVALID_OPTION`
   */
  resume: (name: string) => Promise<boolean>
}

export interface PauseOptions {
  /** The person or system that pauses it, up to 255 characters. Shown by `list`. */
  readonly by?: string | undefined
  /** The reason, up to 2,000 characters. */
  readonly reason?: string | undefined
}

/** Maximum number of waiting jobs of a subscription that are counted. */
const maxCountedJobs = 10_000

interface SubscriptionRow extends Record<string, unknown> {
  readonly name: string
  readonly service: string
  readonly patterns: readonly string[]
  readonly where: string | null
  readonly options: RegisteredOptions
  readonly paused_at: Date | null
  readonly paused_by: string | null
  readonly pause_reason: string | null
  readonly circuit_opened_at: Date | null
  readonly circuit_reason: string | null
  readonly circuit_probe_at: Date | null
  readonly created_at: Date
  readonly instance_count: number
  readonly uncovered_since: Date | null
  readonly job_count: number
  readonly event_count: number
}

/** @param onChange - applies the change to the workers of this process; awaited before a call resolves */
export function createSubscriptions(database: Database, onChange: () => Promise<void>): Subscriptions {
  async function changed(name: string, change: Promise<boolean | undefined>): Promise<boolean> {
    const hasChanged = found(name, await change)
    await onChange()
    return hasChanged
  }

  return {
    async list() {
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
         select coalesce(live.instances, 0) as instance_count, s.uncovered_since, s.name, s.service, s.patterns, s."where", s.options, s.paused_at, s.paused_by, s.pause_reason,
           s.circuit_opened_at, s.circuit_reason, s.circuit_probe_at, s.created_at,
           greatest(waiting.jobs, lined.events)::int as job_count, (waiting.events + lined.events)::int as event_count
         from bus.subscriptions s
         join waiting using (id)
         left join live using (id)
         cross join lateral (
           select count(*) as events from (
             select from bus.ordered_keys k join bus.ordered_events e on e.key_id = k.id and e.seq > k.done_seq
             where k.subscription_id = s.id limit ${maxCountedJobs}
           ) e
         ) lined
         order by s.name`,
      )
      return rows.map(toInfo)
    },
    async pause(name, options = {}) {
      if (options === null || typeof options !== 'object')
        throw invalidOption(`Expected options like { by, reason }, got ${describe(options)}`)
      refuseUnknownKeys(options, ['by', 'reason'], 'subscriptions.pause')
      const { by, reason } = options
      if (by !== undefined) assertTextOption('by', by, { min: 0, max: 255 })
      if (reason !== undefined) assertTextOption('reason', reason, { min: 0, max: 2000 })
      return changed(name, pauseSubscription(database, checkName(name), by, reason))
    },
    async resume(name) {
      return changed(name, resumeSubscription(database, checkName(name)))
    },
  }
}

function toInfo(row: SubscriptionRow): SubscriptionInfo {
  const { paused_at: pausedAt, circuit_opened_at: openedAt } = row
  return {
    name: row.name,
    service: row.service,
    events: row.patterns,
    where: row.where ?? undefined,
    options: row.options,
    state: stateOf(row),
    pause:
      pausedAt === null
        ? undefined
        : { at: pausedAt, by: row.paused_by ?? undefined, reason: row.pause_reason ?? undefined },
    circuit:
      openedAt === null
        ? undefined
        : { openedAt, reason: row.circuit_reason ?? '', nextProbeAt: row.circuit_probe_at ?? openedAt },
    waitingCount: row.event_count,
    isWaitingCountPartial: row.job_count >= maxCountedJobs,
    instanceCount: row.instance_count,
    uncoveredSince: row.uncovered_since ?? undefined,
    registeredAt: row.created_at,
  }
}

function stateOf(row: SubscriptionRow): SubscriptionInfo['state'] {
  if (row.paused_at !== null) return 'paused'
  if (row.circuit_opened_at !== null) return 'circuit open'
  return row.instance_count === 0 ? 'unserved' : 'active'
}

function found(name: string, changed: boolean | undefined): boolean {
  if (changed !== undefined) return changed
  throw new ConfigurationError(
    'BUS_SUBSCRIPTION_NOT_FOUND',
    `There is no subscription ${describe(name)} in this database`,
  )
}

function checkName(name: unknown): string {
  assertTextOption('name', name, { max: limits.subscriptionNameLength })
  return name
}
