import type { Executor } from '../database/database.ts'
import { idOption } from '../foundation/options.ts'

/**
 * The state of an event for one subscription. `waiting`: for its first attempt. `delivering`: a worker is handling it.
 * `retrying`: an attempt failed, and the next one starts at `dueAt`. `delivered`. `expired`: its time had passed.
 * `erased`: `bus.erase` emptied it before it was delivered. `discarded`: it was a dead letter, and a person decided that it is not to be
 * delivered. `dead`: it is a dead letter, or is parked behind one.
 */
export interface EventDelivery {
  readonly subscription: string
  readonly state:
    'waiting' | 'delivering' | 'retrying' | 'delivered' | 'expired' | 'erased' | 'discarded' | 'dead'
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

/**
 * The state of an event for each subscription that received it. Empty while it is still in the outbox. Everything is looked up by index,
 * so it takes about as long however many events wait.
 *
 * @param source - the SQL function to call: the operator's, or the one of the current tenant
 */
export async function readDeliveries(
  executor: Executor,
  source: 'bus.event_deliveries' | 'bus.tenant_deliveries',
  id: unknown,
): Promise<EventDelivery[]> {
  const { rows } = await executor.query<DeliveryRow>(
    `select subscription, state, attempts, failure, due_at, delivered_at, duration_ms::numeric as duration_ms, timeline from ${source}($1::uuid)`,
    [idOption('id', id)],
  )
  return rows.map(
    ({ subscription, state, attempts, failure, due_at, delivered_at, duration_ms, timeline }) => ({
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
    }),
  )
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
