import { randomUUID } from 'node:crypto'
import { createHealth, type BusState } from './bus-health.ts'
import type { Bus } from './bus-interface.ts'
import { rememberOptions } from './bus-settings.ts'
import { waitUntil } from './foundation/with-timeout.ts'
import { createPublishing } from './bus-publishing.ts'
import { createBusForwarding } from './bus-forwarding.ts'
import { createBusReceiving } from './bus-receiving.ts'
import { createBusSubscriptions } from './bus-subscriptions.ts'
import { resolveBusOptions, type BusOptions } from './bus-options.ts'
import type { EventCatalogue } from './events/catalogue.ts'
import { StateError } from './foundation/errors.ts'
import { limits } from './foundation/limits.ts'
import { assertObject, booleanOption, integerOption, refuseUnknownKeys } from './foundation/options.ts'
import { reasonOf } from './foundation/error-reason.ts'
import { createBlockedKeys } from './delivery/operator/blocked-keys.ts'
import { startDelivery, type Delivery } from './delivery/delivery.ts'
import { createQueues } from './delivery/registry/registry.ts'
import { ledgerMigration, recordKnownFailures } from './delivery/ledger/known-failures.ts'
import { migrateBoss } from './delivery/jobs/boss.ts'
import { assertMigratableBoss } from './delivery/jobs/boss-version.ts'
import { createSubscriptions } from './delivery/operator/subscriptions.ts'
import { createAudit } from './audit/audit.ts'
import { createDeadLetters } from './operations/dead-letters/dead-letters.ts'
import { createDiscardPart } from './operations/dead-letters/discard.ts'
import { createRedrivePart } from './operations/dead-letters/redrive.ts'
import { createErasures, eraseSubject } from './operations/erase.ts'
import { startOperationRunner, type OperationRunner } from './operations/operation-runner.ts'
import { createOperations } from './operations/operations.ts'
import { createQueries } from './operations/queries.ts'
import { catchUpFor, createCatchUpPart } from './operations/replay/catch-up.ts'
import { createReplayPart } from './operations/replay/replay-part.ts'
import { createReplay } from './operations/replay/replay.ts'
import { removalPart } from './operations/subscription-removal.ts'
import { createSubscriptionRemoval } from './operations/subscriptions.ts'
import { readStats } from './operations/stats.ts'
import { readCatalogue, recordCatalogue } from './operations/stored-catalogue.ts'
import { createAdmission } from './health/admission.ts'
import { createCanary } from './health/canary.ts'
import { createDatabase } from './database/database.ts'
import type { DrizzleOption, HandlerTransaction } from './database/drizzle-handle.ts'
import { checkSchema, migrateSchema } from './migrations/migrate.ts'
import { repairSequences } from './outbox/schema/sequences.ts'
import { type DefaultedBy, type EventDefaults, type Publisher } from './outbox/publish/publisher.ts'
import { assertNodeVersion } from './foundation/node-version.ts'
import { chosenOf, resolveRun, type RunOption } from './run-option.ts'
import { runOutside } from './telemetry/guarded-span.ts'
import { createMetrics } from './telemetry/prometheus/metrics.ts'
import { createTelemetry } from './telemetry/telemetry.ts'
import { createPayloadView } from './operations/payload-view.ts'
import { createRetention, startRetention, type RetentionTimer } from './retention/retention.ts'
import { createReads } from './tenancy/reads.ts'
import { ensureRoles, resolveMigrateOptions } from './tenancy/roles.ts'
import { version } from './foundation/version.ts'

export type { Bus, StartOptions, StopOptions, SubscriptionHandle } from './bus-interface.ts'

/**
 * How long a stop may take after its grace period: aborted handlers end and the remaining jobs are requeued, even on a
 * slow database.
 */
const stopMarginMs = 5000

/** How long operations may take to fail after their connections were cut. */
const cutMarginMs = 500

/**
 * Creates a bus. It opens no connection before `migrate`, `start` or `tryPublish`; `publish` uses the caller's
 * connection.
 *
 * @example
 * ```ts
 * const bus = createBus({ database: databaseUrl, events, source: 'payment-service' })
 * await bus.migrate()
 * bus.subscribe({
 *   name: 'open-case',
 *   events: ['payment.paid'],
 *   handler: async ({ payload, tenantId }) => openCaseFor(tenantId, payload.paymentId),
 * })
 * await bus.start()
 * ```
 * @throws a {@link ConfigurationError} `BUS_NODE_UNSUPPORTED`, `BUS_INVALID_OPTION`
 */
export function createBus<
  const C extends EventCatalogue,
  const D extends DrizzleOption = DrizzleOption,
  const E extends EventDefaults | undefined = undefined,
>(options: BusOptions<C, D, E>): Bus<C, HandlerTransaction<D>, DefaultedBy<E>> {
  assertNodeVersion()
  const { settings, logger, bossSchema, drizzle, ...resolved } = resolveBusOptions(options)
  const { defaults, callbacks, retention, health: healthLimits } = resolved
  const database = createDatabase(options.database, logger, bossSchema, drizzle)
  const canary = createCanary(database, settings.source, options.canary, logger)
  const admission = createAdmission(database, options.admission, logger)
  const blockedKeys = createBlockedKeys(database, settings.source, logger)
  const erasures = createErasures(database)
  const operations = createOperations(database)
  const own = () => ({ state, delivery, failedTryPublishCount: publishing.failedTryCount })
  const { health, isLive } = createHealth({
    ...{ database, limits: healthLimits, readCanary: canary.readLast, own },
  })
  const metrics = createMetrics(
    {
      ...{ database, logger, service: settings.source, types: Object.keys(settings.catalogue) },
      ...{ subscriptions: () => subscriptions.map(({ name }) => name), readHealth: health, own },
    },
    resolved.metrics,
  )
  const telemetry = createTelemetry(resolved.telemetry, [metrics.recorder], () => database.server)
  const deadLetters = createDeadLetters(database, operations, settings, logger, telemetry.recorder)
  const registered = {
    // What follows from a state, such as the next probe of a circuit breaker, comes when the caller's trace is long over.
    ...createSubscriptions(database, settings.source, async () =>
      runOutside(async () => delivery?.followStates()),
    ),
    ...createSubscriptionRemoval(database, operations, logger),
  }
  let state: BusState = 'created'
  let delivery: Delivery | undefined
  let runner: OperationRunner | undefined
  let retentionTimer: RetentionTimer | undefined
  let starting: Promise<void> | undefined
  let stopping: Promise<void> | undefined
  const retentionParts = { database, logger, service: settings.source, options: retention }
  const mayClose = Promise.withResolvers<void>()
  const {
    declared: subscriptions,
    given,
    subscribe,
  } = createBusSubscriptions({
    ...{ catalogue: settings.catalogue, callbacks, logger, state: () => state, starting: () => starting },
    builtIn: canary.subscription === undefined ? [] : [canary.subscription],
    delivery: () => delivery,
    receiverNames: () => receiving.names(),
  })
  const forwarding = createBusForwarding(subscribe, () => state === 'started', logger)
  const publishing = createPublishing(database, settings, logger, defaults, admission, telemetry)
  const receiving = createBusReceiving({
    ...{ database, settings, telemetry, logger, state: () => state, starting: () => starting },
    admit: async () => admission.admit(false),
    subscriptionNames: () => subscriptions.map(({ name }) => name),
  })

  async function start(run: RunOption): Promise<void> {
    const chosen = chosenOf(subscriptions, run, receiving.names())
    await Promise.all([forwarding.open(chosen), receiving.open(run)])
    await database.shareConnections(chosen.some(({ mode }) => mode === 'exactly-once'))
    await checkSchema(database)
    database.assertEnoughConnections()
    const recorded = recordCatalogue(database, settings.source, settings.catalogue, logger)
    if (run === 'nothing') {
      await recorded
      logger.info({ service: settings.source, version }, 'the bus has started and delivers no events')
      return
    }
    delivery = await startDelivery({
      database,
      catalogue: settings.catalogue,
      service: settings.source,
      instanceId: randomUUID(),
      subscriptions: chosen,
      declaredNames: subscriptions.map(({ name }) => name),
      logger,
      publishing: publishing.forHandlers,
      telemetry,
      onOperations() {
        runner?.wake()
        receiving.wake()
      },
      onCatchUp: catchUpFor(settings.source),
    })
    runner = startOperationRunner({
      ...{ database, logger },
      parts: {
        redrive: createRedrivePart(database, logger, telemetry.recorder),
        discard: createDiscardPart(database, logger),
        replay: createReplayPart(database, logger),
        'catch-up': createCatchUpPart(database, logger),
        remove: removalPart(database),
      },
    })
    retentionTimer = startRetention(retentionParts)
    canary.start()
    await recorded
    await receiving.start()
  }

  /**
   * Operations that wait for a database that does not answer are cut off, so that the stop always ends. What it waits for: `stop` in
   * delivery/delivery.ts, and of each worker in delivery/worker/worker.ts.
   */
  async function stopInTime(graceMs: number): Promise<void> {
    const isStarting = state === 'starting'
    const beganAt = performance.now()
    const deadline = beganAt + graceMs
    state = 'stopping'
    logger.info({ service: settings.source, graceMs }, 'the bus is stopping')
    const stopped = (async () => {
      if (isStarting) await starting?.catch(() => {})
      const received = receiving.stop(deadline)
      await Promise.all([canary.stop(), runner?.stop(), retentionTimer?.stop(), delivery?.stop(graceMs)])
      await Promise.all([received, forwarding.close()])
      await waitUntil(deadline, mayClose.promise)
      await database.close()
    })().catch((error: unknown) =>
      logger.error({ reason: reasonOf(error) }, 'the bus could not be stopped cleanly'),
    )
    await waitUntil(deadline + stopMarginMs, stopped)
    database.destroy()
    await waitUntil(performance.now() + cutMarginMs, stopped)
    state = 'stopped'
    const durationMs = Math.round(performance.now() - beganAt)
    logger.info({ service: settings.source, durationMs }, 'the bus has stopped')
  }

  return rememberOptions(options, given, {
    get state() {
      return state
    },
    get live() {
      return isLive()
    },
    ...createReads<C, HandlerTransaction<D>>(database, createPayloadView(settings.catalogue)),
    deadLetters,
    blockedKeys,
    erasures,
    operations,
    queries: createQueries(database),
    audit: createAudit(database),
    ...createRetention(retentionParts),
    subscriptions: registered,
    replay: createReplay(database, operations),
    erase: async (eraseOptions) => eraseSubject(database, eraseOptions),
    async migrate(migrateOptions = {}) {
      const { roles, sharedBoss } = resolveMigrateOptions(migrateOptions)
      if (state === 'stopping' || state === 'stopped')
        throw new StateError('Expected migrate() before stop()')
      await migrateSchema(database, {
        logger,
        async before(isBusThere) {
          await assertMigratableBoss(database, { isBusThere, mayMigrateShared: sharedBoss === 'migrate' })
          // The table of migrations has a sequence too.
          if (isBusThere) await repairSequences(database, logger, { isOlderAllowed: true })
        },
        async after(applied) {
          await repairSequences(database, logger)
          await migrateBoss(database, logger)
          if (applied > 0 && applied < ledgerMigration) await recordKnownFailures(database)
          if (subscriptions.length > 0) await createQueues(database, settings.source, subscriptions, logger)
          if (roles === 'create') await ensureRoles(database, logger)
        },
      })
    },
    subscribe,
    forward: forwarding.forward,
    receive: receiving.receive,
    quarantine: receiving.quarantine,
    async start(startOptions = {}) {
      assertObject('options like { run }', startOptions)
      refuseUnknownKeys(startOptions, ['run'], 'start')
      const run = resolveRun(startOptions.run)
      if (state === 'stopping' || state === 'stopped')
        throw new StateError('Expected start() before stop(): a stopped bus does not start again')
      if (state === 'created') {
        state = 'starting'
        // Its loops go on when the caller's trace is long over.
        starting = runOutside(async () => start(run)).then(
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
    ...(publishing.publisher as Publisher<C, DefaultedBy<E>>),
    cancel: publishing.cancel,
    publishByHand: publishing.publishByHand,
    catalogue: { list: async () => readCatalogue(database) },
    admit: async () => admission.admit(false),
    stats: async (statsOptions) => readStats(database, statsOptions),
    canary: async (call) => canary.run(call),
    health,
    metrics: metrics.read,
  })
}
