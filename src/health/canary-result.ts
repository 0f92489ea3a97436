import type { Database } from '../database/database.ts'
import { canary } from '../events/event-type.ts'

/** How a test event came through. */
export interface CanaryResult {
  /** Whether its receipt came in time. */
  readonly ok: boolean
  readonly eventId: string
  /** The service that published it. */
  readonly service: string
  /** Whether it was published by the option `canary.everySeconds`. */
  readonly isScheduled: boolean
  readonly publishedAt: Date
  /** The step that did not come in time: the relay did not dispatch it, no worker handled it, or no receipt was written. */
  readonly failedStep: 'relay' | 'worker' | 'receipt' | undefined
  /** How long each step took, in milliseconds. Undefined for those that did not come. */
  readonly steps: {
    /** From the publish to the relay's claim. */
    readonly relayMs: number | undefined
    /** From there until a worker fetched the job. */
    readonly queueMs: number | undefined
    /** From there until the handler had run. */
    readonly handlerMs: number | undefined
    /** From there until the receipt was written. */
    readonly receiptMs: number | undefined
  }
  /** From the publish to the receipt. */
  readonly totalMs: number | undefined
}

export interface CanaryRow extends Record<string, unknown> {
  readonly event_id: string
  readonly service: string
  readonly is_scheduled: boolean
  readonly published_at: Date
  readonly dispatched_at: Date | null
  readonly fetched_at: Date | null
  readonly handled_at: Date | null
  readonly received_at: Date | null
  readonly failed_step: 'relay' | 'worker' | 'receipt' | null
}

/** A canary with the time of its receipt, if there is one already. */
export async function readCanary(
  database: Pick<Database, 'query'>,
  id: string,
): Promise<CanaryRow | undefined> {
  const { rows } = await database.query<CanaryRow>(
    `select c.event_id, c.service, c.is_scheduled, c.published_at, c.dispatched_at, c.fetched_at, c.handled_at, c.failed_step,
       (select r.delivered_at from bus.receipts r where r.event_id = $1 and not r.expired
          and r.subscription_id = (select s.id from bus.subscriptions s where s.name = '${canary.subscription}')) as received_at
     from bus.canaries c where c.event_id = $1`,
    [id],
  )
  return rows[0]
}

/** The last test event of any process that is over; undefined if there is none. */
export async function readLastCanary(database: Pick<Database, 'query'>): Promise<CanaryResult | undefined> {
  const { rows } = await database.query<CanaryRow>(
    `select * from bus.canaries where received_at is not null or failed_step is not null order by published_at desc limit 1`,
  )
  return rows[0] === undefined ? undefined : toResult(rows[0])
}

export function toResult(row: CanaryRow): CanaryResult {
  const { published_at, dispatched_at, fetched_at, handled_at, received_at, failed_step } = row
  return {
    ok: failed_step === null && received_at !== null,
    eventId: row.event_id,
    service: row.service,
    isScheduled: row.is_scheduled,
    publishedAt: published_at,
    failedStep: failed_step ?? undefined,
    steps: {
      relayMs: between(published_at, dispatched_at),
      queueMs: between(dispatched_at, fetched_at),
      handlerMs: between(fetched_at, handled_at),
      receiptMs: between(handled_at, received_at),
    },
    totalMs: between(published_at, received_at),
  }
}

/** A transaction's time is that of its beginning, which may be before the end of the step before. */
function between(from: Date | null, to: Date | null): number | undefined {
  return from === null || to === null ? undefined : Math.max(0, to.getTime() - from.getTime())
}
