import type { Executor } from '../database/database.ts'
import { checkId } from './history-filter.ts'

/**
 * How an event stands with one subscription. `waiting`: for its first attempt. `delivering`: in a worker's hands.
 * `retrying`: an attempt failed, another one will be made at `dueAt`. `delivered`; `expired`: its time had passed. `dead`: given
 * up, or parked behind one that was.
 */
export interface EventDelivery {
  readonly subscription: string
  readonly state: 'waiting' | 'delivering' | 'retrying' | 'delivered' | 'expired' | 'dead'
  /** Attempts that were made, and are over. */
  readonly attempts: number
  /** How the last attempt failed, unless it was delivered since. */
  readonly lastError: LastError | undefined
  /** When the next attempt may begin. */
  readonly dueAt: Date | undefined
  /** When its handler had succeeded. */
  readonly deliveredAt: Date | undefined
  /** When nothing was left to do: it was delivered, or recorded as expired or erased. */
  readonly settledAt: Date | undefined
  /** How long the attempt took that succeeded. */
  readonly durationMs: number | undefined
}

/** How an attempt failed. */
export interface LastError {
  readonly name: string
  readonly message: string
  /** The error's `code`, where it had one. */
  readonly code: string | undefined
  /** When, by the clock of the process that ran it. */
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
  } | null
  readonly due_at: Date | null
  readonly delivered_at: Date | null
  readonly duration_ms: string | null
}

/**
 * What became of an event, by subscription: those that have it, or had it. None while it is still in the outbox. Receipts are
 * looked up; what has none is searched for in the queues, which takes time in proportion to what waits there.
 *
 * @param source - the function to ask: of the operator, or of the tenant that is set
 */
export async function readDeliveries(
  executor: Executor,
  source: 'bus.event_deliveries' | 'bus.tenant_deliveries',
  id: unknown,
): Promise<EventDelivery[]> {
  const { rows } = await executor.query<DeliveryRow>(
    `select subscription, state, attempts, failure, due_at, delivered_at, duration_ms::numeric as duration_ms from ${source}($1::uuid)`,
    [checkId('id', id)],
  )
  return rows.map(({ subscription, state, attempts, failure, due_at, delivered_at, duration_ms }) => ({
    subscription,
    state,
    attempts,
    lastError:
      failure === null
        ? undefined
        : {
            name: failure.name ?? 'Error',
            message: failure.message ?? '',
            code: failure.code,
            at: failure.at === undefined ? undefined : new Date(failure.at),
          },
    dueAt: due_at ?? undefined,
    deliveredAt: state === 'delivered' ? (delivered_at ?? undefined) : undefined,
    settledAt: delivered_at ?? undefined,
    durationMs: state === 'delivered' && duration_ms !== null ? Number(duration_ms) : undefined,
  }))
}
