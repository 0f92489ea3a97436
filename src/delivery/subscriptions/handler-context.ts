import type { EventCatalogue } from '../../events/catalogue.ts'
import type { NewEvent, Published } from '../../events/envelope.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { CallerTransaction } from '../../outbox/transactions/caller-transaction.ts'
import type { CancelCall } from '../../outbox/publish/cancel.ts'
import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import type { EventPublisher } from '../../outbox/publish/publisher.ts'

/**
 * What a handler gets beside the event. It is a `Publisher`: what it publishes was caused by the event, so it has the
 * event's tenant and correlation id unless it says its own, and the event as its cause.
 */
export type HandlerContext<C extends EventCatalogue = EventCatalogue> = EventContext<NewEvent<C, 'tenantId'>>

/** A {@link HandlerContext}, by the events that it publishes. */
export interface EventContext<E> extends EventPublisher<E, E> {
  /** 1 for the first attempt of this subscription at this event. */
  readonly attempt: number
  /** Aborted when the attempt has run out of time, or the process has to stop. Pass it on to what you call. */
  readonly signal: AbortSignal
  /** A logger whose lines carry the event, the subscription and the attempt. */
  readonly log: BusLogger
  /**
   * Publishes an event caused by this one. With a transaction in front it commits with that transaction; without one it commits by
   * itself, with `mode: 'exactly-once'` with `ctx.tx`.
   */
  readonly publish: {
    (event: E): Promise<Published>
    (tx: CallerTransaction, event: E): Promise<Published>
  }
  /** The same for 1 to 10,000 events: all or none, in the order given. */
  readonly publishMany: {
    (events: readonly E[]): Promise<Published[]>
    (tx: CallerTransaction, events: readonly E[]): Promise<Published[]>
  }
  /**
   * Cancels a scheduled event of the same tenant, or of `tenantId`, as `bus.cancel` does: in the transaction given, with
   * `mode: 'exactly-once'` in `ctx.tx`, else by itself.
   */
  readonly cancel: CancelCall
}

/** What a handler gets beside the event with `mode: 'exactly-once'`. */
export type ExactlyOnceContext<
  C extends EventCatalogue = EventCatalogue,
  Tx = HandlerTransaction,
> = EventContextWithTransaction<NewEvent<C, 'tenantId'>, Tx>

/** An {@link ExactlyOnceContext}, by the events that it publishes. */
export interface EventContextWithTransaction<E, Tx> extends EventContext<E> {
  /**
   * What is written through it commits together with the receipt of the event, or not at all: once, whatever crashes,
   * retries, redeliveries and presumed-dead workers there are. The bus commits it: a handler that ends it by hand is
   * refused. `publish` and `cancel` without a transaction in front join it. It is read committed, with the search path, time zone and date style
   * that the database and the role say.
   */
  readonly tx: Tx
}
