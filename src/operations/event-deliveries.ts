import type { Executor } from '../database/database.ts'
import { idOption } from '../foundation/options.ts'

/**
 * The state of an event for one subscription. `waiting`: for its first attempt. `delivering`: a worker is handling it.
 * `retrying`: an attempt failed, and the next one starts at `dueAt`. `delivered`. `expired`: its time had passed.
 * `erased`: `bus.erase` emptied it before it was delivered. `discarded`: it was a dead letter, and a person decided that it is not to be
 * delivered. `dead`: it is a dead letter, or is parked behind one. `replayed`: it came in replays only, or is to come in one.
 */
export interface EventDelivery {
  readonly subscription: string
  readonly state:
    | 'waiting'
    | 'delivering'
    | 'retrying'
    | 'delivered'
    | 'expired'
    | 'erased'
    | 'discarded'
    | 'dead'
    | 'replayed'
  /** Finished attempts. */
  readonly attempts: number
  /** The error of the last attempt. Undefined once the event is settled: `timeline` still has it. */
  readonly lastError: LastError | undefined
  /** When the next attempt may start. */
  readonly dueAt: Date | undefined
  /** When its handler succeeded. */
  readonly deliveredAt: Date | undefined
  /** Who discarded it. Set in the state `discarded`; for tenants, and once the audit is pruned, it says nothing more. */
  readonly discard: Discard | undefined
  /** When the event was settled: delivered, discarded, or recorded as expired or erased. */
  readonly settledAt: Date | undefined
  /** The duration of the successful attempt. */
  readonly durationMs: number | undefined
  /**
   * The finished attempts, oldest first, those that were lost with their process among them.
   */
  readonly timeline: readonly AttemptRecord[]
  /** What became of it in replays, and in those that have it still to deliver, latest first. Omitted if there are none. */
  readonly replays?: readonly ReplayedDelivery[]
}

/** What became of an event in a replay, for a subscription. */
export interface ReplayedDelivery {
  /** The operation: see `bus.operations.get`. */
  readonly replayId: string
  /**
   * `planned`: the replay has yet to come to it, and decides then. `waiting`: it is in the queue, for its first attempt of the replay. The
   * others as for {@link EventDelivery}.
   */
  readonly state:
    'planned' | 'waiting' | 'delivering' | 'retrying' | 'delivered' | 'expired' | 'erased' | 'dead'
  /** Finished attempts of the replay. */
  readonly attempts: number
  readonly lastError: LastError | undefined
  readonly dueAt: Date | undefined
  readonly settledAt: Date | undefined
  /** The duration of the successful attempt. */
  readonly durationMs: number | undefined
}

/** Who discarded a dead letter, and why. */
export interface Discard {
  readonly by: string | undefined
  readonly reason: string | undefined
  /** The id of the edited copy that is delivered in its place. */
  readonly replacedBy: string | undefined
}

/** A finished attempt. */
export interface AttemptRecord {
  /** Its number, from 1. */
  readonly attempt: number
  readonly succeeded: boolean
  /** When it ended. */
  readonly endedAt: Date
  /** How long its handler ran. Undefined if none ran, or its process was lost. */
  readonly durationMs: number | undefined
  /** Why it failed. */
  readonly error: LastError | undefined
  /**
   * The process that made it: an id of `bus.instances` while it runs, and `instanceId` in its log. Undefined where it is not recorded, and
   * for tenants.
   */
  readonly instanceId: string | undefined
}

/** How an attempt failed. */
export interface LastError {
  readonly name: string
  readonly message: string
  /** The error's `code`, if it had one. */
  readonly code: string | undefined
  /** When it failed, by the clock of the process that ran the attempt. */
  readonly at: Date | undefined
}

interface DeliveryRow extends Record<string, unknown> {
  readonly subscription: string
  readonly state: EventDelivery['state']
  readonly attempts: number
  readonly failure: {
    readonly name?: string
    readonly message?: string
    readonly code?: string
    readonly at?: string
    readonly discardedBy?: string
    readonly reason?: string
    readonly replacedBy?: string
  } | null
  readonly due_at: Date | null
  readonly delivered_at: Date | null
  readonly duration_ms: string | null
  readonly timeline: readonly RecordedAttempt[]
}

/** As `bus.event_deliveries` returns it. */
interface RecordedAttempt {
  readonly attempt: number
  readonly at: string
  readonly durationMs?: number
  readonly succeeded: boolean
  readonly name?: string
  readonly message?: string
  readonly code?: string
  readonly instanceId?: string
}

/** As `bus.event_replays` returns it, in JSON. */
export interface ReplayRow {
  readonly subscription: string
  readonly operation_id: string
  readonly state: ReplayedDelivery['state']
  readonly attempts: number
  readonly failure: DeliveryRow['failure']
  readonly due_at: string | null
  readonly settled_at: string | null
  readonly duration_ms: number | null
}

/**
 * The state of an event for each subscription that received it. Empty while it is still in the outbox. Everything is looked up by index,
 * so it takes about as long however many events wait.
 *
 * @param of - whose SQL functions to call: those of operators, or those of the current tenant
 */
export async function readDeliveries(
  executor: Executor,
  of: 'event' | 'tenant',
  id: unknown,
): Promise<EventDelivery[]> {
  const { rows } = await executor.query<NullableRow & { readonly replays: readonly ReplayRow[] | null }>(
    `select d.subscription, d.state, d.attempts, d.failure, d.due_at, d.delivered_at, d.duration_ms::numeric as duration_ms, d.timeline, r.replays
     from (select jsonb_agg(to_jsonb(x)) as replays from bus.${of}_replays($1::uuid) x) r
     left join bus.${of}_deliveries($1::uuid) d on true`,
    [idOption('id', id)],
  )
  const replays = groupReplays(rows[0]?.replays)
  const live = rows
    .filter(
      (row): row is DeliveryRow & { readonly replays: readonly ReplayRow[] | null } => row.state !== null,
    )
    .map(toDelivery)
  const names = new Set(live.map(({ subscription }) => subscription))
  const others = [...replays.keys()].filter((name) => !names.has(name))
  return [...live, ...others.map(replayedOnly)].map((delivery) => {
    const its = replays.get(delivery.subscription)
    return its === undefined ? delivery : { ...delivery, replays: its }
  })
}

type NullableRow = { readonly [K in keyof DeliveryRow]: DeliveryRow[K] | null }

function toDelivery({
  subscription,
  state,
  attempts,
  failure,
  due_at,
  delivered_at,
  duration_ms,
  timeline,
}: DeliveryRow): EventDelivery {
  return {
    subscription,
    state,
    attempts,
    lastError: failure === null || state === 'discarded' ? undefined : toError(failure),
    discard:
      state === 'discarded'
        ? { by: failure?.discardedBy, reason: failure?.reason, replacedBy: failure?.replacedBy }
        : undefined,
    dueAt: due_at ?? undefined,
    deliveredAt: state === 'delivered' ? (delivered_at ?? undefined) : undefined,
    settledAt: delivered_at ?? undefined,
    durationMs: state === 'delivered' && duration_ms !== null ? Number(duration_ms) : undefined,
    timeline:
      // A first attempt that succeeded is in the receipt alone.
      state === 'delivered' && attempts === 1 && delivered_at !== null
        ? [
            {
              attempt: 1,
              succeeded: true,
              endedAt: delivered_at,
              durationMs: Number(duration_ms),
              error: undefined,
              instanceId: undefined,
            },
          ]
        : timeline.map(toAttempt),
  }
}

/** What became of an event in replays, by the names of subscriptions: from the rows of `bus.event_replays`, in JSON. */
export function groupReplays(
  rows: readonly ReplayRow[] | null | undefined,
): ReadonlyMap<string, readonly ReplayedDelivery[]> {
  const groups = Map.groupBy(rows ?? [], ({ subscription }) => subscription)
  return new Map([...groups].map(([name, its]) => [name, its.map(toReplayed)]))
}

function replayedOnly(subscription: string): EventDelivery {
  return {
    ...{ subscription, state: 'replayed', attempts: 0, lastError: undefined, dueAt: undefined },
    ...{
      discard: undefined,
      deliveredAt: undefined,
      settledAt: undefined,
      durationMs: undefined,
      timeline: [],
    },
  }
}

function toReplayed(row: ReplayRow): ReplayedDelivery {
  const { operation_id: replayId, state, attempts, failure, due_at, settled_at, duration_ms } = row
  return {
    replayId,
    state,
    attempts,
    lastError: failure === null ? undefined : toError(failure),
    dueAt: due_at === null ? undefined : new Date(due_at),
    settledAt: settled_at === null ? undefined : new Date(settled_at),
    durationMs: state === 'delivered' && duration_ms !== null ? duration_ms : undefined,
  }
}

function toAttempt(recorded: RecordedAttempt): AttemptRecord {
  const { attempt, succeeded, at, durationMs, instanceId } = recorded
  return {
    attempt,
    succeeded,
    endedAt: new Date(at),
    durationMs,
    error: succeeded ? undefined : toError(recorded),
    instanceId,
  }
}

function toError({ name = 'Error', message = '', code, at }: NonNullable<DeliveryRow['failure']>): LastError {
  return { name, message, code, at: at === undefined ? undefined : new Date(at) }
}
