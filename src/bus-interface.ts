import type { BusHealth, BusState } from './bus-health.ts'
import type { BlockedKeys } from './delivery/operator/blocked-keys.ts'
import type { DeadLetters } from './delivery/operator/dead-letters.ts'
import type { DefinedSubscription } from './delivery/subscriptions/define-subscription.ts'
import type { DeliveryMode, SubscriptionOptions } from './delivery/subscriptions/subscription-options.ts'
import type { Subscriptions } from './delivery/operator/subscriptions.ts'
import type { EventCatalogue } from './events/catalogue.ts'
import type { EventPattern } from './events/pattern.ts'
import type { Erased, EraseOptions, Erasures } from './operations/erase.ts'
import type { CancelCall } from './outbox/publish/cancel.ts'
import type { HandlerTransaction } from './database/drizzle-handle.ts'
import type { Publisher } from './outbox/publish/publisher.ts'
import type { RunOption } from './run-option.ts'
import type { Reads } from './tenancy/reads.ts'
import type { MigrateOptions } from './tenancy/roles.ts'

/**
 * A durable event bus on PostgreSQL.
 *
 * @typeParam C - the catalogue
 * @typeParam Tx - what `ctx.tx` is, and the `db` of `tenant.query`: it follows from the option `drizzle`
 * @typeParam Defaulted - `'tenantId'` where the option `defaults` says the tenant
 */
export interface Bus<
  C extends EventCatalogue = EventCatalogue,
  Tx = HandlerTransaction,
  Defaulted extends 'tenantId' = never,
>
  extends Publisher<C, Defaulted>, Reads<C, Tx> {
  readonly state: BusState
  /**
   * Creates or updates the schema `bus` and pg-boss's. Safe from any number of processes at once; run again it
   * changes nothing. Needs a role that may create schemas. Makes the queues of the subscriptions declared so far, for
   * processes whose role may not, and the roles of the bus: see {@link MigrateOptions}.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
   */
  migrate: (options?: MigrateOptions) => Promise<void>
  /**
   * Declares a subscription of this service, before `start`. Every event that matches, from the first start on, is
   * delivered to the handler of one instance, at least once; with `mode: 'exactly-once'` what the handler writes through
   * `ctx.tx` happens exactly once.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_INVALID_WHERE`, `BUS_DUPLICATE_SUBSCRIPTION`
   * @throws a {@link StateError} when the bus was started already
   */
  // One signature: of several, an editor would offer the options of the first alone.
  subscribe: <const P extends EventPattern<C>, const M extends DeliveryMode = 'at-least-once'>(
    subscription: SubscriptionOptions<C, P, M, Tx> | DefinedSubscription<C, Tx>,
  ) => void
  /**
   * Checks the schema, registers the subscriptions, and starts relay and workers. What of the catalogue is new or changed is
   * recorded in `bus.catalogue`, where the role may write it. Of several calls the first one counts.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link StateError}; {@link DatabaseError}
   */
  start: (options?: StartOptions) => Promise<void>
  /**
   * Stops: nothing new is begun, running handlers get `graceMs` to finish, then their signals are aborted and their
   * events go back with no attempt counted. Calling it again waits for the same stop. It always ends: six seconds after
   * `graceMs` at the latest, also while the bus starts or the database does not answer; what could not be handed back then
   * is found by its heartbeat. When it resolves, nothing of the bus keeps the process alive, whatever its handlers still do.
   */
  stop: (options?: StopOptions) => Promise<void>
  /**
   * Cancels a scheduled event (one with `availableAt` or `availableIn`), by the `id` that publish gave, before it fires, so that nobody gets it; with a Drizzle
   * transaction in front, if and only if that commits. Resolves to whether it was cancelled: false when it has fired,
   * was cancelled before, was never scheduled, is unknown or, with `tenantId`, another tenant's. Exactly one of the
   * cancellation and the delivery happens. The event stays in the log, `bus.cancellations` says when it was cancelled,
   * and its `eventId` and `idempotencyKey` stay used.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link TransactionError}; {@link DatabaseError}
   */
  cancel: CancelCall
  /**
   * Erases what the log holds about a subject of a tenant: payload and metadata of its events become a tombstone, what
   * failed attempts wrote down about them is emptied, and who asked for it is recorded in `bus.erasures`. Receipts, ids and
   * keys stay. Events that still wait are settled as erased. When it resolves, everything that was committed before the call
   * is erased, and no handler begins with an erased payload any more, in any process; for that it takes 5 seconds where
   * there was something to erase. What is published later is not touched, what is published meanwhile may be. Calling it again is harmless, and
   * goes on with what was cut off.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
   */
  erase: (options: EraseOptions) => Promise<Erased>
  /** Who erased what. */
  readonly erasures: Erasures
  readonly deadLetters: DeadLetters
  /** The keys of ordered subscriptions that wait for a person, or for a handler that ignores its signal. */
  readonly blockedKeys: BlockedKeys
  /** The subscriptions of all services in this database. */
  readonly subscriptions: Subscriptions
  health: () => Promise<BusHealth>
}

export interface StartOptions {
  /**
   * What this process runs: `'everything'`; some subscriptions, by name; or `'nothing'`, for a process that only publishes, whose
   * health is good without a relay. Every process may declare all subscriptions: those that it does not run are others' to run.
   * @defaultValue `'everything'`
   */
  readonly run?: RunOption | undefined
}

export interface StopOptions {
  /** How long running handlers may take to finish, in milliseconds. @defaultValue `30000` */
  readonly graceMs?: number | undefined
  /**
   * Whether the connections stay, for `tryPublish` and the reads, until `stop` is called again without it, or `graceMs` is
   * over: while requests of an HTTP server finish. @defaultValue `false`
   */
  readonly keepOpen?: boolean | undefined
}
