import type { Executor } from '../../database/database.ts'
import { statePayload } from '../../outbox/relay/notifier.ts'
import type { KeyFailureRule } from '../subscriptions/subscription-options.ts'
import type { ResolvedRetry } from '../subscriptions/retry-options.ts'

/** The runtime state of a subscription, set by a person or by its circuit breaker, for all processes. */
export interface SubscriptionState {
  readonly paused: boolean
  /** Who has paused it, and why, if that was said. */
  readonly pausedBy?: string | undefined
  readonly pauseReason?: string | undefined
  /** Those that an operator has set, or of its newest declaration, because they apply to the whole queue. */
  readonly retry: ResolvedRetry
  /** What an operator has set in place of the code's. */
  readonly concurrency: number | undefined
  readonly onKeyFailure: KeyFailureRule | undefined
  /** Milliseconds until the next probe; undefined while the circuit breaker is closed. */
  readonly probeInMs: number | undefined
}

/** In SQL: what an operator has set in a row `s` of `bus.subscriptions`, while it counts; otherwise null. */
export const overridesSql = '(case when s.overrides_until > now() then s.overrides end)'

/**
 * In SQL: whether the subscription in a row `s` of `bus.subscriptions` is paused, by a person or by its overrides. A pause of overrides has
 * `paused_at` too, and ends when they expire, which is before a process clears them.
 */
export const isPausedSql = `(case when s.overrides ? 'paused' then s.overrides_until > now() else s.paused_at is not null end)`

/** In SQL: whether a person has paused it, so that it stays paused when its overrides end. */
export const isPausedByPersonSql = `(s.paused_at is not null and not coalesce(s.overrides ? 'paused', false))`

/** The columns of {@link SubscriptionState} in a row `s` of `bus.subscriptions`. */
export const stateColumns = `${isPausedSql} as paused, s.paused_by, s.pause_reason,
  coalesce(${overridesSql}->'retry', s.options->'retry') as retry, (${overridesSql}->>'concurrency')::int as concurrency,
  s.options->>'onKeyFailure' as on_key_failure,
  case when s.circuit_opened_at is not null
    then greatest(0, extract(epoch from s.circuit_probe_at - clock_timestamp()) * 1000) end as probe_ms`

export interface StateRow {
  readonly paused: boolean
  readonly paused_by: string | null
  readonly pause_reason: string | null
  readonly retry: ResolvedRetry
  readonly concurrency: number | null
  readonly on_key_failure: KeyFailureRule | null
  readonly probe_ms: string | null
}

export function toState({
  paused,
  paused_by,
  pause_reason,
  retry,
  concurrency,
  on_key_failure,
  probe_ms,
}: StateRow): SubscriptionState {
  return {
    paused,
    pausedBy: paused_by ?? undefined,
    pauseReason: pause_reason ?? undefined,
    retry,
    concurrency: concurrency ?? undefined,
    onKeyFailure: on_key_failure ?? undefined,
    probeInMs: probe_ms === null ? undefined : Number(probe_ms),
  }
}

/** The states of some subscriptions, by id. */
export async function readStates(
  executor: Executor,
  ids: readonly number[],
): Promise<ReadonlyMap<number, SubscriptionState>> {
  const { rows } = await executor.query<StateRow & { readonly id: number }>(
    `select s.id, ${stateColumns} from bus.subscriptions s where s.id = any($1::int[])`,
    [ids],
  )
  return new Map(rows.map((row) => [row.id, toState(row)]))
}

/** If the notification fails, other processes poll the change within seconds. */
export async function notifyState(executor: Executor, ids: readonly number[]): Promise<void> {
  await executor.query(`select pg_notify('bus_wake', $1)`, [statePayload('', ids)])
}

/** In SQL: what closes the circuit breaker. */
export const closedCircuit =
  'circuit_opened_at = null, circuit_reason = null, circuit_probe_at = null, circuit_probe_count = 0'

/** The reason why a circuit breaker opens. */
export interface Trip {
  readonly reason: string
  /** The tenants whose events failed. */
  readonly tenantIds: readonly string[]
  readonly probeSeconds: number
}

/** The number of latest events that show whether there are tenants other than the failing one. */
const tenantSample = 1000

/**
 * Opens the circuit breaker of a subscription for all processes, unless it is open. If only the events of one tenant
 * fail, it opens only if no other tenant has published recently. Returns whether it is open now. Takes the row lock of
 * the subscription.
 */
export async function openCircuit(executor: Executor, id: number, trip: Trip): Promise<boolean> {
  const { reason, tenantIds, probeSeconds } = trip
  const { rows } = await executor.query<{ opened: boolean }>(
    `with opened as (
       update bus.subscriptions
       set circuit_opened_at = now(), circuit_reason = $2, circuit_probe_count = 0,
         circuit_probe_at = clock_timestamp() + $3 * interval '1 second'
       where id = $1 and circuit_opened_at is null and ($4::int > 1 or not exists (
         select from (select tenant_id from bus.events order by id desc limit ${tenantSample}) latest
         where latest.tenant_id <> $5))
       returning id
     )
     select exists (select from opened) or exists (
       select from bus.subscriptions where id = $1 and circuit_opened_at is not null) as opened`,
    [id, reason, probeSeconds, tenantIds.length, tenantIds[0] ?? ''],
  )
  if (rows[0]?.opened !== true) return false
  await notifyState(executor, [id])
  return true
}

/** Closes the circuit breaker. Returns whether it was open. */
export async function closeCircuit(executor: Executor, id: number): Promise<boolean> {
  const { rows } = await executor.query(
    `update bus.subscriptions set ${closedCircuit} where id = $1 and circuit_opened_at is not null returning id`,
    [id],
  )
  if (rows.length > 0) await notifyState(executor, [id])
  return rows.length > 0
}

/**
 * Claims the next probe when it is due: one process gets it, and each further one is later. A time further ahead than
 * any that is ever set comes from a clock that was set back since.
 */
export async function claimProbe(
  executor: Executor,
  id: number,
  probeSeconds: number,
  maxProbeSeconds: number,
): Promise<boolean> {
  const { rows } = await executor.query(
    `update bus.subscriptions
     set circuit_probe_count = circuit_probe_count + 1,
       circuit_probe_at = clock_timestamp()
         + least($3::float8, $2 * 2.0 ^ least(circuit_probe_count + 1, 20)) * interval '1 second'
     where id = $1 and circuit_opened_at is not null and (circuit_probe_at <= clock_timestamp()
       or circuit_probe_at > clock_timestamp() + greatest($2::float8, $3::float8) * interval '1 second')
     returning id`,
    [id, probeSeconds, maxProbeSeconds],
  )
  return rows.length > 0
}
