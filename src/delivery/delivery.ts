import type { EventCatalogue } from '../events/catalogue.ts'
import type { BusLogger } from '../foundation/logger.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import type { Database } from '../database/database.ts'
import { openNotifier } from '../outbox/relay/notifier.ts'
import { createPartitionKeeper } from '../outbox/schema/partitions.ts'
import { startRelay, type Relay, type RelayState } from '../outbox/relay/relay.ts'
import { repairSequences } from '../outbox/schema/sequences.ts'
import { version } from '../foundation/version.ts'
import type { HandlerPublishing } from './attempts/context-publisher.ts'
import { openBoss } from './jobs/boss.ts'
import { createCoverage } from './registry/coverage.ts'
import type { Registration } from './registry/declarations.ts'
import { createEventReader } from './attempts/event-reader.ts'
import { createHandlerPool } from './exactly-once/handler-connections.ts'
import { warnOfIdlePatterns } from './subscriptions/idle-patterns.ts'
import {
  startInstanceHeartbeat,
  warnOfUnserved,
  type InstanceHeartbeat,
} from './registry/instance-heartbeat.ts'
import { createQuarantine } from './in-flight/quarantine.ts'
import { registerSubscriptions } from './registry/registry.ts'
import { createRouter, type LocalWorkers } from './routing/router.ts'
import { readStates, type SubscriptionState } from './flow-control/subscription-state.ts'
import type { Subscription } from './subscriptions/subscription.ts'
import { startMaintenance, type Maintenance } from './maintenance/maintenance.ts'
import { startWorker } from './worker/worker.ts'
import type { Worker } from './worker/worker-parts.ts'

/** The delivery side of one process. */
export interface Delivery {
  readonly relayState: RelayState
  /** Whether notifications of the database arrive. */
  readonly isListening: boolean
  /** Handlers that are still running after their attempt ended. */
  readonly overrunningHandlerCount: number
  /**
   * Applies the current states of the subscriptions to the workers of this process. If the database is down,
   * maintenance applies them later.
   */
  followStates: () => Promise<void>
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
}

/**
 * Repairs sequences and partitions and registers the subscriptions, then starts the workers, the relay and the
 * maintenance of one process.
 */
export async function startDelivery(parts: DeliveryParts): Promise<Delivery> {
  const { database, catalogue, service, instanceId, subscriptions, logger, publishing } = parts
  const exactlyOnceCount = subscriptions.filter(({ mode }) => mode === 'exactly-once').length
  if (exactlyOnceCount > 0) await database.drizzle.load()
  await repairSequences(database, logger)
  const partitions = createPartitionKeeper(database, logger)
  const hasPartitions = await partitions.keep()
  const boss = await openBoss(database, service, logger, { registerInstance: true })
  const workers = new Map<number, Worker>()
  /** Copies, so that queue-wide options follow the newest declaration, whichever process it belongs to. */
  const running = subscriptions.map((subscription): RunningSubscription => ({ ...subscription }))
  const events = createEventReader(database, subscriptions.length)
  const quarantine = createQuarantine()
  let maintenance: Maintenance | undefined
  const handlerPool = exactlyOnceCount > 0 ? createHandlerPool(database, exactlyOnceCount) : undefined
  let registrations: ReadonlyMap<string, Registration>
  let instanceHeartbeat: InstanceHeartbeat | undefined
  let relay: Relay | undefined
  try {
    registrations = await registerSubscriptions(database, boss, service, subscriptions)
    instanceHeartbeat = await startInstanceHeartbeat({
      database,
      boss,
      service,
      instanceId,
      subscriptions,
      registrations,
      logger,
      state: () => ({
        relay: relay?.state ?? 'stopped',
        inHandCount: [...workers.values()].reduce((count, worker) => count + worker.inHandCount, 0),
      }),
      onRegistered: (again: ReadonlyMap<string, Registration>) => {
        registrations = again
      },
    })
    const states = await readStates(
      database,
      [...registrations.values()].map(({ subscriptionId }) => subscriptionId),
    )
    for (const subscription of running) {
      const { name } = subscription
      const id = registrations.get(name)?.subscriptionId
      if (id === undefined) continue
      const follow = (state: SubscriptionState | undefined): void => followQueue(subscription, state)
      follow(states.get(id))
      const declarationId = (): number => registrations.get(name)?.declarationId ?? 0
      const workerParts = {
        database,
        boss,
        catalogue,
        events,
        logger,
        publishing,
        quarantine,
        coverage: createCoverage(database, subscription, id, declarationId),
        state: states.get(id) ?? {
          ...subscription,
          onKeyFailure: subscription.onKeyFailure,
          paused: false,
          probeInMs: undefined,
        },
        connections: subscription.mode === 'exactly-once' ? handlerPool?.connectionsOf() : undefined,
        onFailures: () => maintenance?.requestPoll(subscription.name),
        onState: follow,
      }
      workers.set(id, startWorker(subscription, id, workerParts))
    }
  } catch (error) {
    await instanceHeartbeat?.leave().catch(() => {})
    await handlerPool?.close()
    await boss.stop({ graceful: false })
    throw error
  }
  const localWorkers = {
    get subscriptionIds() {
      return workers.keys()
    },
    onIncomplete: () => {
      instanceHeartbeat?.recheckRegistration()
      maintenance?.runNow()
    },
    isFree: (id, types, declarations) => workers.get(id)?.isFree(types, declarations) ?? false,
    wake: (id) => workers.get(id)?.wake(),
    adopt: (id, jobs, fetchedAt) => workers.get(id)?.adopt(jobs, fetchedAt),
    prefetch: (ids) => events.prefetch(ids),
  } satisfies LocalWorkers
  /** If it fails, maintenance applies the states later. */
  async function followStates(ids: readonly number[]): Promise<void> {
    const readAt = performance.now()
    const states = await readStates(database, ids).catch(() => new Map<number, SubscriptionState>())
    for (const [id, state] of states) workers.get(id)?.applyState(state, readAt)
  }
  const router = createRouter(boss, database, instanceId, localWorkers)
  let wasConnected = false
  const notifier = openNotifier(database, instanceId, logger, {
    onPublished: () => relay?.notify(),
    onWake: (ids) => {
      for (const id of ids) workers.get(id)?.wake()
    },
    onStateChange: (ids) => void followStates(ids.filter((id) => workers.has(id))),
    onConnection: (connected) => {
      if (!connected) return
      // The server may have changed, and the new one may lack the values of the sequences.
      if (wasConnected)
        repairSequences(database, logger).catch((error: unknown) => {
          logger.warn({ reason: reasonOf(error) }, 'the sequences could not be checked')
        })
      wasConnected = true
      // Notifications in the meantime were missed.
      for (const worker of workers.values()) worker.wake()
    },
  })
  warnOfIdlePatterns(subscriptions, catalogue, logger)
  void warnOfUnserved(database, service, parts.declaredNames, logger)
  const runningRelay = startRelay(database, notifier, router, logger)
  relay = runningRelay
  maintenance = startMaintenance({
    database,
    boss,
    workers: [...workers.values()],
    partitions,
    hasPartitions,
    // Without notifications there is no leader: each process runs the tasks that are harmless when repeated.
    isLeader: () => notifier.leading || notifier.polling,
    isPolling: () => notifier.polling,
    instanceHeartbeat,
    logger,
  })
  const started = { service, instanceId, version, subscriptionCount: subscriptions.length }
  logger.info(started, 'the bus has started')

  return {
    get relayState() {
      return runningRelay.state
    },
    get isListening() {
      return notifier.connected
    },
    get overrunningHandlerCount() {
      let count = 0
      for (const worker of workers.values()) count += worker.overruns.count
      return count
    },
    followStates: async () => followStates([...workers.keys()]),
    async stop(graceMs) {
      await database.faultPoint?.('stop.began')
      const relayStopped = runningRelay.stop()
      const stops = [...workers.values()].map(async (worker) => worker.stop(graceMs, relayStopped))
      await Promise.all([relayStopped, maintenance?.stop(), ...stops])
      await database.faultPoint?.('stop.workers-stopped')
      await handlerPool?.close()
      await notifier.close()
      // If the database is down, other processes detect it by the missing heartbeat.
      await instanceHeartbeat?.leave().catch(() => {})
      await boss.stop({ graceful: false })
    },
  }
}

type RunningSubscription = { -readonly [K in keyof Subscription]: Subscription[K] }

/** Retries and the failure rule of keys belong to the queue: they are those of the newest declaration, not of this process's. */
function followQueue(subscription: RunningSubscription, state: SubscriptionState | undefined): void {
  if (state === undefined) return
  subscription.retry = state.retry
  if (state.onKeyFailure !== undefined) subscription.onKeyFailure = state.onKeyFailure
}
