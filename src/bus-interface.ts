import type { Audit } from './audit/audit.ts'
import type { BusHealth, BusState, HealthOptions } from './bus-health.ts'
import type { ReceiverHandle } from './bus-receiving.ts'
import type { PublishChange } from './bus-publishing.ts'
import type { CanaryCall } from './health/canary.ts'
import type { CanaryResult } from './health/canary-result.ts'
import type { BlockedKeys } from './delivery/operator/blocked-keys.ts'
import type { DefinedSubscription } from './delivery/subscriptions/define-subscription.ts'
import type { DeliveryMode, SubscriptionOptions } from './delivery/subscriptions/subscription-options.ts'
import type { EventCatalogue } from './events/catalogue.ts'
import type { NewEvent, Published } from './events/envelope.ts'
import type { EventPattern } from './events/pattern.ts'
import type { DeadLetters } from './operations/dead-letters/dead-letters.ts'
import type { Erased, EraseOptions, Erasures } from './operations/erase.ts'
import type { Operations } from './operations/operations.ts'
import type { Queries } from './operations/queries.ts'
import type { ReplayCall } from './operations/replay/replay.ts'
import type { Subscriptions } from './operations/subscriptions.ts'
import type { DeclaredTypes } from './operations/stored-catalogue.ts'
import type { BusStats } from './operations/stats.ts'
import type { StatsOptions } from './operations/stats-options.ts'
import type { CancelCall } from './outbox/publish/cancel.ts'
import type { HandlerTransaction } from './database/drizzle-handle.ts'
import type { Publisher } from './outbox/publish/publisher.ts'
import type { RunOption } from './run-option.ts'
import type { PruneOptions, Retention } from './retention/retention.ts'
import type { RetentionReport } from './retention/round.ts'
import type { ForwardOptions } from './transports/forward.ts'
import type { ReceiveOptions } from './transports/receive.ts'
import type { Quarantine } from './transports/receiving/quarantine.ts'
import type { Reads } from './tenancy/reads.ts'
import type { MigrateOptions } from './tenancy/roles.ts'

/**
 * A durable event bus on PostgreSQL.
 *
 * @typeParam C - the catalogue
 * @typeParam Tx - the type of `ctx.tx` and of the `db` of `tenant.query`; it follows from the option `drizzle`
 * @typeParam Defaulted - `'tenantId'` if the option `defaults` supplies the tenant
 */
export interface Bus<
  C extends EventCatalogue = EventCatalogue,
  Tx = HandlerTransaction,
  Defaulted extends 'tenantId' = never,
>
  extends Publisher<C, Defaulted>, Reads<C, Tx> {
  readonly state: BusState
  /** Whether the loops of this process make progress, as `live` of {@link Bus.health}, without asking the database: for liveness probes. */
  readonly live: boolean
  /**
   * Creates or updates the schema `bus` and pg-boss's schema. Safe to call from any number of processes at once;
   * calling it again changes nothing. The role must be allowed to create schemas. Also creates the queues of the
   * subscriptions declared so far, for processes whose role may not, and the roles of the bus: see
   * {@link MigrateOptions}.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
   */
  migrate: (options?: MigrateOptions) => Promise<void>
  /**
   * Declares a subscription of this service. Every matching event that is published after the first start is delivered
   * to the handler of one instance, at least once. With `mode: 'exactly-once'`, what the handler writes through `ctx.tx`
   * takes effect exactly once. After `start` the subscription is registered and served at once: `ready()` of the handle
   * says when, or why not.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_INVALID_WHERE`, `BUS_DUPLICATE_SUBSCRIPTION`
   * @throws a {@link StateError} if the bus was stopped, or runs nothing
   */
  // A single signature: with overloads an editor would suggest the options of the first one only.
  subscribe: <const P extends EventPattern<C>, const M extends DeliveryMode = 'at-least-once'>(
    subscription: SubscriptionOptions<C, P, M, Tx> | DefinedSubscription<C, Tx>,
  ) => SubscriptionHandle
  /**
   * Declares a subscription that sends each event to another system: a broker, a webhook, another bus, a file. It has everything that a
   * subscription has: retries, a circuit breaker, dead letters, order, replay. An event is delivered when the system has acknowledged it; it
   * is sent at least once, with its id as the key for duplicates. Where the system keeps order, the subscription is `ordered` unless told
   * otherwise. The bus opens the transport when it starts and closes it when it stops. The handle is that of all its subscriptions.
   *
   * @example
   * ```ts
   * bus.forward({ name: 'to-partners', events: ['order.**'], to: kafka({ producer, topic: 'orders' }) })
   * ```
   * @throws as {@link Bus.subscribe}
   */
  forward: <const P extends EventPattern<C>>(options: ForwardOptions<P>) => SubscriptionHandle
  /**
   * Declares a receiver: messages of another system, such as a broker or a webhook, become events. A message is acknowledged when its event
   * is committed, and becomes one event however often it is delivered: its id is the `idempotencyKey`, which is remembered for
   * `retention.keysDays`, 30 days unless told otherwise. A message that cannot become an event is kept in {@link Bus.quarantine}. The bus
   * starts the source when it starts, in processes that run everything or name the receiver, and stops it first when it stops.
   *
   * @example
   * ```ts
   * bus.receive({
   *   name: 'shop-orders',
   *   from: kafkaSource({ consumer, topics: ['orders'] }),
   *   map: ({ body }) => ({ type: 'order.placed', tenantId: 'acme', payload: JSON.parse(Buffer.from(body).toString()) }),
   * })
   * ```
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_DUPLICATE_RECEIVER`; a {@link StateError} if the bus was stopped
   */
  receive: (options: ReceiveOptions<C>) => ReceiverHandle
  /** The messages of other systems that could not become events. */
  readonly quarantine: Quarantine
  /**
   * Checks the schema, registers the subscriptions, and starts the relay and the workers. New or changed event types of
   * the catalogue are recorded in `bus.catalogue`, if the role may write it. If called several times, only the first
   * call counts.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link StateError}; {@link DatabaseError}
   */
  start: (options?: StartOptions) => Promise<void>
  /**
   * Stops the bus. No new handler starts; running handlers get `graceMs` to finish. Then their signals are aborted, and
   * their events are requeued without counting an attempt. Another call waits for the same stop. It always resolves, at
   * most six seconds after `graceMs`, even while the bus is starting or the database does not answer. Jobs that could
   * not be requeued by then are recovered when their heartbeat is missed. After it resolves, the bus no longer keeps
   * the process alive, whatever its handlers still do.
   */
  stop: (options?: StopOptions) => Promise<void>
  /**
   * Cancels a scheduled event (one with `availableAt` or `availableIn`) before it is due, by the `id` that publish
   * returned. If the first argument is a transaction, the cancellation takes effect only if that transaction commits.
   * Resolves to `true` if cancelled, and to `false` if the event has already been dispatched, was already cancelled,
   * was never scheduled, does not exist or, with `tenantId`, belongs to another tenant. An event is either delivered or
   * cancelled, never both. The event stays in the log, and `bus.cancellations` records the time. Its `eventId` and
   * `idempotencyKey` are remembered as those of any event: for 30 days, unless `retention.keysDays` says otherwise.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link TransactionError}; {@link DatabaseError}
   */
  cancel: CancelCall
  /**
   * Publishes an event on behalf of a person or a program, who is recorded in `bus.audit`, in a transaction of its own: for tests and repairs,
   * from a dashboard or a command line. The option `defaults` does not count. Services publish in their own transactions, with
   * {@link Publisher.publish}.
   * @throws an {@link InvalidEventError} before anything is written; a {@link ConfigurationError} `BUS_INVALID_OPTION`; an
   *   {@link OverloadError}; {@link DatabaseError}
   */
  publishByHand: (event: NewEvent<C>, change: PublishChange) => Promise<Published>
  /** The event types that the services of this database have declared. */
  readonly catalogue: DeclaredTypes
  /**
   * Erases what the log holds about a subject of a tenant. The payload and metadata of its events are replaced by a
   * tombstone, the records of failed attempts at them are emptied, and `bus.erasures` records who asked for it.
   * Receipts, ids and keys remain. Waiting events are settled as erased. When it resolves, every event that was
   * committed before the call is erased, and no handler in any process starts with an erased payload; if there was
   * anything to erase, this takes 5 seconds. Events published later are not affected; events published during the call
   * may be. Repeating the call is harmless, and resumes one that was interrupted.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
   */
  erase: (options: EraseOptions) => Promise<Erased>
  /** The record of erasures. */
  readonly erasures: Erasures
  /** The work over many events that is under way or done: redrives, discards, replays, removals. */
  readonly operations: Operations
  /** The record of every change by a person or a program. */
  readonly audit: Audit
  /**
   * Does now what retention does by itself once an hour: archives and drops the partitions that the policies of the services say must go,
   * and deletes what is older than it is kept. With `dryRun` it only says what would go, and what holds it back.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_RETENTION_RUNNING`; {@link DatabaseError}
   */
  prune: (options: PruneOptions) => Promise<RetentionReport>
  /** What is kept how long, what goes next and what holds it back. */
  readonly retention: Retention
  readonly deadLetters: DeadLetters
  /** The blocked keys of ordered subscriptions: they wait for a person, or for a handler that ignores its signal. */
  readonly blockedKeys: BlockedKeys
  /** The subscriptions of all services in this database. */
  readonly subscriptions: Subscriptions
  /** What dashboards ask, typed: the views `bus.v_…`. */
  readonly queries: Queries
  /**
   * Delivers events of the log to chosen subscriptions once more, or counts what that would do.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_SUBSCRIPTION_NOT_FOUND`; {@link DatabaseError}
   */
  readonly replay: ReplayCall
  /**
   * Counts and times of the past: by minute, hour, day, subscription or tenant. They are statistics: up to ten seconds old, those of
   * tenants a minute, and without the last seconds of a process that crashed.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
   */
  stats: (options?: StatsOptions) => Promise<BusStats>
  /**
   * The state of the bus. Never rejects because of the database: what could not be checked is a finding. Takes some milliseconds, so that
   * probes may call it every few seconds.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
   */
  health: (options?: HealthOptions) => Promise<BusHealth>
  /**
   * What Prometheus scrapes: the text of its format 0.0.4, which is served with the content type {@link prometheusContentType}. Counts and
   * durations of this process, from the first call on unless the option `metrics` is set; and what the database says of all subscriptions,
   * read at most every ten seconds. Never rejects because of the database: `bossbus_metrics_section_up` says what could not be read. Takes
   * at most five seconds: what is being read comes with the next call. docs/guide/metrics.md lists the metrics.
   */
  metrics: () => Promise<string>
  /**
   * Publishes a test event, and resolves when its receipt is written or the time is over. Works in every process, if a running one has
   * the option `canary`. Calls at the same time share one event.
   * @throws a {@link StateError} if no running process has the option, or the bus is stopped meanwhile; a {@link ConfigurationError} `BUS_INVALID_OPTION`;
   *   {@link DatabaseError}
   */
  canary: (options?: CanaryCall) => Promise<CanaryResult>
  /**
   * Refuses or waits as `publish` would, by the option `admission`. Call it before you open a transaction, because a transaction that is
   * open waits for a tenth of a second only.
   * @throws an {@link OverloadError} `BUS_OVERLOADED`
   */
  admit: () => Promise<void>
}

/** A subscription in this process. */
export interface SubscriptionHandle {
  readonly name: string
  /**
   * Resolves when this process serves the subscription. Rejects with the error of the start, or of its registration if it was added
   * later; then it is not served.
   */
  readonly ready: () => Promise<void>
  /**
   * Stops serving it in this process: no new handler starts, running handlers get `graceMs` (0 to 3,600,000, default 30,000) to finish,
   * and the rest is requeued without counting an attempt. It stays registered: its events wait for other processes, and for this one if
   * it subscribes again. To end it for good, see `subscriptions.remove`.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
   */
  readonly stop: (options?: { readonly graceMs?: number | undefined }) => Promise<void>
}

export interface StartOptions {
  /**
   * What this process runs: `'everything'`; some subscriptions and receivers, by name; or `'nothing'`, for a process that only
   * publishes and is healthy without a relay. Every process may declare all subscriptions; those that it does not run
   * are left to other processes.
   * @defaultValue `'everything'`
   */
  readonly run?: RunOption | undefined
}

export interface StopOptions {
  /** How long running handlers may take to finish, in milliseconds. @defaultValue `30000` */
  readonly graceMs?: number | undefined
  /**
   * Keeps the connections open, for `tryPublish` and reads, until `stop` is called again without this option or
   * `graceMs` has passed. Use it while the requests of an HTTP server finish.
   * @defaultValue `false`
   */
  readonly keepOpen?: boolean | undefined
}
