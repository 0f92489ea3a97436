import type { EventCatalogue } from '../../events/catalogue.ts'
import type { NewEvent, Published } from '../../events/envelope.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { CallerTransaction } from '../../outbox/transactions/caller-transaction.ts'
import type { CancelCall } from '../../outbox/publish/cancel.ts'
import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import type { EventPublisher } from '../../outbox/publish/publisher.ts'

/**
 * The second argument of a handler. It is a `Publisher`: events published through it inherit the tenant and the
 * correlation id of the handled event unless they set their own, and have the handled event as their cause.
 */
export type HandlerContext<C extends EventCatalogue = EventCatalogue> = EventContext<NewEvent<C, 'tenantId'>>

/** A {@link HandlerContext}, parameterised by the events that it publishes. */
export interface EventContext<E> extends EventPublisher<E, E> {
  /** 1 for the first attempt of this subscription at this event. */
  readonly attempt: number
  /** Whether the event is replayed (`bus.replay`): the subscription may have had it before. */
  readonly isReplay: boolean
  /** The id of the replay, which is that of its operation. Undefined for an event that is not replayed. */
  readonly replayId: string | undefined
  /** Aborted when the attempt times out or the process must stop. Pass it to the functions you call. */
  readonly signal: AbortSignal
  /** A logger whose lines contain the event, the subscription and the attempt. */
  readonly log: BusLogger
  /**
   * Publishes an event caused by the handled one. If the first argument is a transaction, the event commits with it.
   * Otherwise it commits with `ctx.tx` in `mode: 'exactly-once'`, and immediately, in its own transaction, in other
   * modes.
   */
  readonly publish: {
    (event: E): Promise<Published>
    (tx: CallerTransaction, event: E): Promise<Published>
  }
  /** Publishes 1 to 10,000 events in the same way: all or none, in the given order. */
  readonly publishMany: {
    (events: readonly E[]): Promise<Published[]>
    (tx: CallerTransaction, events: readonly E[]): Promise<Published[]>
  }
  /**
   * Cancels a scheduled event of the same tenant, or of `tenantId`, like `bus.cancel`: in the transaction passed in;
   * otherwise in `ctx.tx` with `mode: 'exactly-once'`, and in a transaction of its own in other modes.
   */
  readonly cancel: CancelCall
}

/** The second argument of a handler with `mode: 'exactly-once'`. */
export type ExactlyOnceContext<
  C extends EventCatalogue = EventCatalogue,
  Tx = HandlerTransaction,
> = EventContextWithTransaction<NewEvent<C, 'tenantId'>, Tx>

/** An {@link ExactlyOnceContext}, parameterised by the events that it publishes. */
export interface EventContextWithTransaction<E, Tx> extends EventContext<E> {
  /**
   * Writes through `tx` commit together with the receipt of the event, or not at all: they take effect exactly once,
   * despite crashes, retries, redeliveries and workers presumed dead. The bus commits it; a handler that ends it itself
   * fails. `publish` and `cancel` without a transaction use it. Its isolation level is read committed; search path,
   * time zone and date style are those of the database and the role.
   */
  readonly tx: Tx
}
