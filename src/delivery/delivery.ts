import type { EventCatalogue } from '../events/catalogue.ts'
import { canary } from '../events/event-type.ts'
import type { BusLogger } from '../foundation/logger.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import type { LoopProgress } from '../foundation/loop-progress.ts'
import type { Database } from '../database/database.ts'
import { openNotifier } from '../outbox/relay/notifier.ts'
import { createPartitionKeeper } from '../outbox/schema/partitions.ts'
import type { Dispatch } from '../outbox/relay/claim.ts'
import { startRelay, type RelayState } from '../outbox/relay/relay.ts'
import { repairSequences } from '../outbox/schema/sequences.ts'
import { version } from '../foundation/version.ts'
import type { Telemetry } from '../telemetry/telemetry.ts'
import type { HandlerPublishing } from './attempts/context-publisher.ts'
import { openBoss } from './jobs/boss.ts'
import type { OnCatchUp } from './registry/catch-up.ts'
import type { Registration } from './registry/declarations.ts'
import { createEventReader } from './attempts/event-reader.ts'
import { createHandlerPool, type HandlerPool } from './exactly-once/handler-connections.ts'
import { warnOfIdlePatterns } from './subscriptions/idle-patterns.ts'
import {
  startInstanceHeartbeat,
  warnOfUnserved,
  type InstanceHeartbeat,
} from './registry/instance-heartbeat.ts'
import { createRollups, type Rollups } from './ledger/rollups.ts'
import { registerSubscriptions } from './registry/registry.ts'
import { createRouter } from './routing/router.ts'
import type { Subscription } from './subscriptions/subscription.ts'
import { startDeadLetterCalls, type DeadLetterCalls } from './maintenance/dead-letter-calls.ts'
import { createMaintenance } from './maintenance/maintenance.ts'
import { createServedChanges } from './served-changes.ts'
import { createWorkerStarter } from './subscription-workers.ts'
import { Workers } from './worker/worker.ts'

/** The delivery side of one process. */
export interface Delivery {
  readonly relayState: RelayState
  /** Whether notifications of the database arrive. */
  readonly isListening: boolean
  /** Whether this process is the one that acts on notifications first. */
  readonly isLeading: boolean
  /** Handlers that are still running after their attempt ended. */
  readonly overrunningHandlerCount: number
  /** The loops of this process. */
  readonly loops: readonly LoopProgress[]
  /**
   * Applies the current states of the subscriptions to the workers of this process. If the database is down,
   * maintenance applies them later.
   */
  followStates: () => Promise<void>
  /**
   * Registers one more subscription, and serves it.
   * @throws the errors of a registration; a {@link ConfigurationError} `BUS_INVALID_OPTION` where no connections are left for its handlers
   */
  add: (subscription: Subscription) => Promise<void>
  /**
   * Stops serving a subscription in this process, like a stop of the bus does, and takes it from what this process declares. Does nothing
   * for one that it does not serve.
   */
  remove: (name: string, graceMs: number) => Promise<void>
  stop: (graceMs: number) => Promise<void>
}

export interface DeliveryParts {
  readonly database: Database
  readonly catalogue: EventCatalogue
  readonly service: string
  readonly instanceId: string
  /** The subscriptions that this process runs. */
  readonly subscriptions: readonly Subscription[]
  /** The names of all subscriptions that this code declares. */
  readonly declaredNames: readonly string[]
  readonly logger: BusLogger
  readonly publishing: HandlerPublishing
  readonly telemetry: Telemetry
  /** Called when operations may have something to do: see src/operations/operation-runner.ts. */
  readonly onOperations: () => void
  /** Called in the transaction that registers a subscription which is to start in the past. */
  readonly onCatchUp: OnCatchUp
}

/**
 * Repairs sequences and partitions and registers the subscriptions, then starts the workers, the relay and the
 * maintenance of one process.
 */
export async function startDelivery(parts: DeliveryParts): Promise<Delivery> {
  const { database, catalogue, service, instanceId, subscriptions, logger } = parts
  const beganAt = performance.now()
  // Changes when subscriptions come and go.
  const served = [...subscriptions]
  const exactlyOnceCount = served.filter(({ mode }) => mode === 'exactly-once').length
  if (exactlyOnceCount > 0) await database.drizzle.load()
  await repairSequences(database, logger)
  const partitions = createPartitionKeeper(database, logger)
  const hasPartitions = await partitions.keep()
  const boss = await openBoss(database, service, logger, { registerInstance: true })
  let handlerPool: HandlerPool | undefined
  let calls: DeadLetterCalls | undefined
  const events = createEventReader(database, () => served.length)
  const workers = new Workers(database, events)
  const rollups = createRollups(database, instanceId, logger)
  const maintenance = createMaintenance({ database, boss, partitions, hasPartitions, logger })
  const registrations = new Map<string, Registration>()
  const startWorkers = createWorkerStarter({
    ...{
      database,
      catalogue,
      instanceId,
      logger,
      boss,
      events,
      workers,
      maintenance,
      registrations,
      rollups,
    },
    publishing: parts.publishing,
    telemetry: parts.telemetry,
    onDeadLetters: () => calls?.wake(),
    handlerPool: () => (handlerPool ??= createHandlerPool(database, Math.max(1, exactlyOnceCount))),
  })
  let instance: InstanceHeartbeat | undefined
  try {
    for (const each of await registerSubscriptions(
      database,
      boss,
      service,
      served,
      new Map(),
      parts.onCatchUp,
    ))
      registrations.set(...each)
    instance = await startInstanceHeartbeat({
      ...{ database, boss, service, instanceId, subscriptions: served, registrations, logger },
      onOperations: parts.onOperations,
    })
    await startWorkers(served)
    calls = startDeadLetterCalls(database, logger, () => toldOf(served, registrations))
  } catch (error) {
    await instance?.leave().catch(() => {})
    await handlerPool?.close()
    await boss.stop({ graceful: false })
    throw error
  }
  const router = createRouter(boss, database, instanceId, workers, () => {
    instance.recheckRegistration()
    maintenance.runNow()
  })
  let wasConnected = false
  const notifier = openNotifier(database, instanceId, logger, {
    onPublished: () => relay.notify(),
    onWake: (ids) => {
      for (const id of ids) workers.wake(id)
    },
    onStateChange: (ids) => void workers.followStates(ids),
    onOperations: parts.onOperations,
    onConnection: (connected) => {
      if (!connected) return
      // The server may have changed, and the new one may lack the values of the sequences.
      if (wasConnected)
        repairSequences(database, logger).catch((error: unknown) => {
          logger.warn({ reason: reasonOf(error) }, 'the sequences could not be checked')
        })
      wasConnected = true
      // Notifications in the meantime were missed.
      workers.wakeAll()
    },
  })
  warnOfIdlePatterns(subscriptions, catalogue, logger)
  void warnOfUnserved(database, service, parts.declaredNames, logger)
  const relay = startRelay(database, notifier, counted(router, rollups), logger)
  instance.report(() => ({ relay: relay.state, inFlightCount: workers.inFlightCount }))
  maintenance.start(notifier, instance)
  rollups.start()
  const durationMs = Math.round(performance.now() - beganAt)
  const started = { service, instanceId, version, subscriptionCount: subscriptions.length, durationMs }
  logger.info(started, 'the bus has started')
  const changes = createServedChanges({
    ...{
      database,
      boss,
      service,
      logger,
      served,
      registrations,
      workers,
      maintenance,
      instance,
      startWorkers,
    },
    onCatchUp: parts.onCatchUp,
    onAdded: (added) => {
      warnOfIdlePatterns([added], catalogue, logger)
      calls?.wake()
    },
  })

  return {
    get relayState() {
      return relay.state
    },
    get isListening() {
      return notifier.connected
    },
    get isLeading() {
      return notifier.leading
    },
    get overrunningHandlerCount() {
      return workers.overrunCount
    },
    get loops() {
      return [relay.progress, maintenance.progress, ...workers.progress]
    },
    followStates: async () => workers.followStates(),
    add: changes.add,
    remove: changes.remove,
    async stop(graceMs) {
      const deadline = performance.now() + graceMs
      const isChanged = changes.stop()
      await database.faultPoint?.('stop.began')
      const relayStopped = relay.stop()
      await Promise.all([relayStopped, maintenance.stop(), workers.stop(graceMs, relayStopped)])
      await database.faultPoint?.('stop.workers-stopped')
      await isChanged
      await calls?.stop(deadline)
      await rollups.stop()
      await handlerPool?.close()
      await notifier.close()
      // If the database is down, other processes detect it by the missing heartbeat.
      await instance.leave().catch(() => {})
      await boss.stop({ graceful: false })
    },
  }
}

/** The subscriptions that have callbacks for dead letters. */
function toldOf(
  subscriptions: readonly Subscription[],
  registrations: ReadonlyMap<string, Registration>,
): ReturnType<Parameters<typeof startDeadLetterCalls>[2]> {
  return subscriptions.flatMap((callbacks) => {
    const id = registrations.get(callbacks.name)?.subscriptionId
    const hasNone = callbacks.onDeadLetter === undefined && callbacks.deadLetterAlert === undefined
    return id === undefined || hasNone ? [] : [{ id, name: callbacks.name, callbacks }]
  })
}

/** Counts the events that are dispatched, once each: held ones are dispatched again. */
function counted(dispatch: Dispatch, rollups: Rollups): Dispatch {
  return async (client, claimed, registryStamp, commit, terms) => {
    const afterCommit = await dispatch(client, claimed, registryStamp, commit, terms)
    return () => {
      if (terms.retakenFor === undefined)
        rollups.published(claimed.filter(({ type }) => type !== canary.type))
      afterCommit()
    }
  }
}
