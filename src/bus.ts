import { randomUUID } from 'node:crypto'
import { readHealth, type BusHealth, type BusState } from './bus-health.ts'
import { beforeTimeout } from './before-timeout.ts'
import { resolveBusOptions, type BusOptions } from './bus-options.ts'
import type { EventCatalogue } from './events/catalogue.ts'
import type { NewEvent, Published, StoredEvent } from './events/envelope.ts'
import { withDefaults } from './events/event-defaults.ts'
import { ConfigurationError, InvalidEventError, StateError } from './events/errors.ts'
import { limits } from './events/limits.ts'
import type { BusLogger } from './events/logger.ts'
import { assertObject, booleanOption, integerOption, refuseUnknownKeys } from './events/options.ts'
import { redactPayload } from './events/payload-redaction.ts'
import type { EventPattern } from './events/pattern.ts'
import { reasonOf } from './events/reason.ts'
import { createBlockedKeys, type BlockedKeys } from './delivery/blocked-keys.ts'
import { startDelivery, type Delivery } from './delivery/delivery.ts'
import { createQueues } from './delivery/registry.ts'
import { createDeadLetters, type DeadLetters } from './delivery/dead-letters.ts'
import { migrateBoss } from './delivery/boss.ts'
import { assertMigratableBoss } from './delivery/boss-version.ts'
import {
  assertRoom,
  resolveSubscription,
  type DeliveryMode,
  type Subscription,
  type SubscriptionOptions,
} from './delivery/subscription.ts'
import { createSubscriptions, type Subscriptions } from './delivery/subscriptions.ts'
import { within } from './delivery/within.ts'
import {
  createErasures,
  eraseSubject,
  type Erased,
  type Erasures,
  type EraseOptions,
} from './operations/erase.ts'
import { recordCatalogue } from './operations/stored-catalogue.ts'
import { mayLoseCommits, type CallerTransaction } from './outbox/caller-transaction.ts'
import { cancelInTransaction, cancelOnItsOwn, checkReference } from './outbox/cancel.ts'
import { createDatabase } from './outbox/database.ts'
import type { DrizzleOption, HandlerTransaction } from './outbox/drizzle-handle.ts'
import { checkSchema, migrateSchema } from './outbox/migrate.ts'
import { repairSequences } from './outbox/sequences.ts'
import { encodeEvents, publishInTransaction, publishOnItsOwn, type UncheckedEvent } from './outbox/publish.ts'
import { assertNodeVersion } from './node-version.ts'
import { createReads, type Reads } from './tenancy/reads.ts'
import { ensureRoles, resolveMigrateOptions, type MigrateOptions } from './tenancy/roles.ts'

/**
 * A durable event bus on PostgreSQL.
 *
 * @typeParam C - the catalogue
 * @typeParam Tx - what `ctx.tx` is, and the `db` of `tenant.query`: it follows from the option `drizzle`
 */
export interface Bus<C extends EventCatalogue = EventCatalogue, Tx = HandlerTransaction> extends Reads<
  C,
  Tx
> {
  readonly state: BusState
  /**
   * Creates or updates the schema `bus` and pg-boss's. Safe from any number of processes at once; run again it
   * changes nothing. Needs a role that may create schemas. Makes the queues of the subscriptions declared so far, for
   * processes whose role may not, and the roles of the bus: see {@link MigrateOptions}.
   * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
   */
  migrate: (options?: MigrateOptions) => Promise<void>
  /**
   * Declares a subscription of this service, before `start`. Every event that matches, from the first start on, is
   * delivered to the handler of one instance, at least once; with `mode: 'exactly-once'` what the handler writes through
   * `ctx.tx` happens exactly once.
   * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_INVALID_WHERE`, `BUS_DUPLICATE_SUBSCRIPTION`
   * @throws {@link StateError} when the bus was started already
   */
  subscribe: <const P extends EventPattern<C>, const M extends DeliveryMode = 'at-least-once'>(
    options: SubscriptionOptions<C, P, M, Tx>,
  ) => void
  /**
   * Checks the schema, registers the subscriptions, and starts relay and workers. What of the catalogue is new or changed is
   * recorded in `bus.catalogue`, where the role may write it.
   */
  start: () => Promise<void>
  /**
   * Stops: nothing new is begun, running handlers get `graceMs` to finish, then their signals are aborted and their
   * events go back with no attempt counted. Calling it again waits for the same stop. It always ends: six seconds after
   * `graceMs` at the latest, also while the bus starts or the database does not answer; what could not be handed back then
   * is found by its heartbeat. When it resolves, nothing of the bus keeps the process alive, whatever its handlers still do.
   */
  stop: (options?: StopOptions) => Promise<void>
  /**
   * Publishes in the caller's transaction: the event is there if and only if the transaction commits.
   * One round trip. A duplicate, by `eventId` or `idempotencyKey` of the tenant, writes nothing and gives the first id. The handle of
   * a savepoint is for its callback alone: kept and used after it was rolled back, it publishes into the outer transaction.
   * @throws {@link InvalidEventError} before anything is written; {@link TransactionError}; {@link DatabaseError}
   */
  publish: (tx: CallerTransaction, event: NewEvent<C>) => Promise<Published>
  /** Publishes 1 to 10,000 events in one statement: all or none, in the order given. */
  publishMany: (tx: CallerTransaction, events: readonly NewEvent<C>[]) => Promise<Published[]>
  /**
   * Publishes in a transaction of its own and never throws: for what business code must not fail over. What cannot be
   * published is logged, counted, and gives undefined. Gives up after 5 seconds.
   */
  tryPublish: (event: NewEvent<C>) => Promise<Published | undefined>
  /**
   * Cancels a scheduled event (one with `availableAt`) before it fires, so that nobody gets it; with a
   * transaction in front, if and only if that commits. Resolves to whether it was cancelled: false when it has fired,
   * was cancelled before, was never scheduled, is unknown or, with `tenantId`, another tenant's. Exactly one of the
   * cancellation and the delivery happens. The event stays in the log, `bus.cancellations` says when it was cancelled,
   * and its `eventId` and `idempotencyKey` stay used.
   * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link TransactionError}; {@link DatabaseError}
   */
  cancel: {
    (eventId: string, options?: CancelOptions): Promise<boolean>
    (tx: CallerTransaction, eventId: string, options?: CancelOptions): Promise<boolean>
  }
  /**
   * Erases what the log holds about a subject of a tenant: payload and metadata of its events become a tombstone, what
   * failed attempts wrote down about them is emptied, and who asked for it is recorded in `bus.erasures`. Receipts, ids and
   * keys stay. Events that still wait are settled as erased. When it resolves, everything that was committed before the call
   * is erased, and no handler begins with an erased payload any more, in any process; for that it takes 5 seconds where
   * there was something to erase. What is published later is not touched, what is published meanwhile may be. Calling it again is harmless, and
   * goes on with what was cut off.
   * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
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

export interface CancelOptions {
  /** Cancels the event only if it is this tenant's. */
  readonly tenantId?: string | undefined
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

/** How long a stop may take beyond its grace: aborted handlers end, and what is left is handed back, on a slow database too. */
const stopMarginMs = 5000

/** How long what was cut off may take to notice. */
const cutMarginMs = 500

/** Logged once, as an error: what was answered as committed may not be there. */
export const lostCommitsError =
  'postgres.js prepares statements behind a pooler in transaction mode: unless the pooler keeps prepared statements, COMMITs can fail ' +
  'and be reported as done. Open the client with prepare: false, or give it a direct database URL (docs/drivers.md)'

/**
 * Makes a bus. Nothing is connected before `migrate`, `start` or `tryPublish`; `publish` uses the caller's connection.
 *
 * @example
 * ```ts
 * const bus = createBus({ database: process.env.DATABASE_URL, events, source: 'payment-service' })
 * await bus.migrate()
 * bus.subscribe({ name: 'open-case', events: ['payment.paid'], handler: async (event) => openCase(event.payload) })
 * await bus.start()
 * ```
 * @throws {@link ConfigurationError} `BUS_NODE_UNSUPPORTED`, `BUS_INVALID_OPTION`
 */
export function createBus<const C extends EventCatalogue, const D extends DrizzleOption = DrizzleOption>(
  options: BusOptions<C, D>,
): Bus<C, HandlerTransaction<D>> {
  assertNodeVersion()
  const { settings, logger, bossSchema, drizzle } = resolveBusOptions(options)
  const database = createDatabase(options.database, logger, bossSchema, drizzle)
  const subscriptions: Subscription[] = []
  const deadLetters = createDeadLetters(database)
  const blockedKeys = createBlockedKeys(database, logger)
  const erasures = createErasures(database)
  const registered = createSubscriptions(database, async () => delivery?.followStates())
  let state: BusState = 'created'
  let delivery: Delivery | undefined
  let starting: Promise<void> | undefined
  let stopping: Promise<void> | undefined
  const mayClose = Promise.withResolvers<void>()
  let failedTryPublishCount = 0
  let hasWarnedOfPooler = false

  async function publishMany(
    tx: CallerTransaction,
    newEvents: readonly UncheckedEvent[],
  ): Promise<Published[]> {
    const published = await publishInTransaction(tx, await encodeEvents(settings, newEvents))
    if (!hasWarnedOfPooler && mayLoseCommits(tx)) {
      hasWarnedOfPooler = true
      logger.error({}, lostCommitsError)
    }
    await database.reach?.('publish.written')
    return published
  }

  async function publishOne(tx: CallerTransaction, event: UncheckedEvent): Promise<Published> {
    return theOnly(await publishMany(tx, [event]))
  }

  async function publishAlone(event: UncheckedEvent): Promise<Published> {
    const published = await publishOnItsOwn(database, await encodeEvents(settings, [event]))
    await database.reach?.('publish.committed')
    return theOnly(published)
  }

  async function publishCaused(cause: StoredEvent, args: readonly unknown[]): Promise<Published> {
    const [tx, event] = (args.length > 1 ? args : [undefined, ...args]) as [
      CallerTransaction | undefined,
      UncheckedEvent,
    ]
    const caused = withDefaults(event, {
      causationId: cause.id,
      correlationId: cause.correlationId ?? cause.id,
    })
    return tx === undefined ? publishAlone(caused) : publishOne(tx, caused)
  }

  async function cancel(...args: readonly unknown[]): Promise<boolean> {
    if (typeof args[0] === 'string') return cancelOnItsOwn(database, checkReference(args[0], args[1] ?? {}))
    const [tx, id, cancelOptions = {}] = args
    return cancelInTransaction(tx as CallerTransaction, checkReference(id, cancelOptions))
  }

  async function tryPublish(event: UncheckedEvent): Promise<Published | undefined> {
    try {
      const publishing = publishAlone(event)
      // Whoever is too late is not waited for; the event may still have been written.
      publishing.catch(() => {})
      return await beforeTimeout(publishing)
    } catch (error) {
      failedTryPublishCount += 1
      logFailedTryPublish(logger, event, error)
      return undefined
    }
  }

  async function start(): Promise<void> {
    await database.shareConnections(subscriptions.some(({ mode }) => mode === 'exactly-once'))
    await checkSchema(database)
    database.assertEnoughConnections()
    const recorded = recordCatalogue(database, settings.source, settings.catalogue, logger)
    delivery = await startDelivery({
      database,
      catalogue: settings.catalogue,
      service: settings.source,
      instanceId: randomUUID(),
      subscriptions,
      logger,
      publishCaused,
    })
    await recorded
  }

  /** What waits for a database that does not answer is cut off, so that the stop always ends. */
  async function stopInTime(graceMs: number): Promise<void> {
    const isStarting = state === 'starting'
    const beganAt = performance.now()
    const deadline = beganAt + graceMs
    state = 'stopping'
    logger.info({ service: settings.source, graceMs }, 'the bus is stopping')
    const stopped = (async () => {
      if (isStarting) await starting?.catch(() => {})
      await delivery?.stop(graceMs)
      await within(deadline, mayClose.promise)
      await database.close()
    })().catch((error: unknown) =>
      logger.error({ reason: reasonOf(error) }, 'the bus could not be stopped in order'),
    )
    await within(deadline + stopMarginMs, stopped)
    database.abandon()
    await within(performance.now() + cutMarginMs, stopped)
    state = 'stopped'
    const durationMs = Math.round(performance.now() - beganAt)
    logger.info({ service: settings.source, durationMs }, 'the bus has stopped')
  }

  return {
    get state() {
      return state
    },
    ...createReads<C, HandlerTransaction<D>>(database, (type, payload) =>
      redactPayload(settings.catalogue, type, payload),
    ),
    deadLetters,
    blockedKeys,
    erasures,
    subscriptions: registered,
    erase: async (eraseOptions) => eraseSubject(database, eraseOptions),
    async migrate(migrateOptions = {}) {
      const { roles, sharedBoss } = resolveMigrateOptions(migrateOptions)
      if (state === 'stopping' || state === 'stopped')
        throw new StateError('Expected migrate() before stop()')
      await migrateSchema(database, {
        logger,
        async before(isBusThere) {
          await assertMigratableBoss(database, { isBusThere, mayMigrateShared: sharedBoss === 'migrate' })
          // The table of the migrations has one too.
          if (isBusThere) await repairSequences(database, logger, { isOlderAllowed: true })
        },
        async after() {
          await repairSequences(database, logger)
          await migrateBoss(database, logger)
          if (subscriptions.length > 0) await createQueues(database, settings.source, subscriptions, logger)
          if (roles === 'create') await ensureRoles(database, logger)
        },
      })
    },
    subscribe(subscriptionOptions) {
      if (state !== 'created')
        throw new StateError(
          'Expected subscribe() before start(): a running bus does not take new subscriptions',
        )
      const subscription = resolveSubscription(subscriptionOptions, settings.catalogue as C)
      if (subscriptions.some(({ name }) => name === subscription.name)) {
        throw new ConfigurationError(
          'BUS_DUPLICATE_SUBSCRIPTION',
          `The subscription \`${subscription.name}\` exists already in this bus`,
        )
      }
      assertRoom(subscriptions, subscription)
      subscriptions.push(subscription)
    },
    async start() {
      if (state === 'stopping' || state === 'stopped')
        throw new StateError('Expected start() before stop(): a stopped bus does not start again')
      if (state === 'created') {
        state = 'starting'
        starting = start().then(
          () => {
            if (state === 'starting') state = 'started'
          },
          (error: unknown) => {
            if (state === 'starting') state = 'created'
            throw error
          },
        )
      }
      await starting
    },
    async stop(stopOptions = {}) {
      assertObject('options like { graceMs }', stopOptions)
      refuseUnknownKeys(stopOptions, ['graceMs', 'keepOpen'], 'stop')
      const { graceMs, keepOpen } = stopOptions
      const grace = integerOption('graceMs', graceMs, limits.graceMs)
      if (!booleanOption('keepOpen', keepOpen, false)) mayClose.resolve()
      stopping ??= stopInTime(grace)
      await stopping
    },
    publish: publishOne,
    publishMany,
    tryPublish,
    cancel,
    health: async () => readHealth(database, { state, delivery, failedTryPublishCount }),
  }
}

/** Whatever the event or the logger do, business code does not hear of it. */
function logFailedTryPublish(logger: BusLogger, event: unknown, error: unknown): void {
  try {
    const { code } = (error ?? {}) as { code?: string }
    logger.error(
      { errorCode: code, reason: reasonOf(error), eventType: printableType(event) },
      'an event could not be published',
    )
  } catch {
    // Counted all the same.
  }
}

function printableType(event: unknown): string | undefined {
  try {
    const { type } = event as { type?: unknown }
    return typeof type === 'string' ? type.slice(0, 255) : undefined
  } catch {
    return undefined
  }
}

function theOnly(published: readonly Published[]): Published {
  const [first] = published
  if (first === undefined)
    throw new InvalidEventError('BUS_INVALID_BATCH', 'The database did not answer for the event')
  return first
}
