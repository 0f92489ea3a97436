import type { PgBoss } from 'pg-boss'
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
import type { HandlerPublishing } from './attempts/context-publisher.ts'
import { openBoss } from './jobs/boss.ts'
import { queueName } from './jobs/queues.ts'
import { createCoverage } from './registry/coverage.ts'
import type { Registration } from './registry/declarations.ts'
import { createEventReader, type EventReader } from './attempts/event-reader.ts'
import { createHandlerPool, type HandlerPool } from './exactly-once/handler-connections.ts'
import { warnOfIdlePatterns } from './subscriptions/idle-patterns.ts'
import {
  startInstanceHeartbeat,
  warnOfUnserved,
  type InstanceHeartbeat,
} from './registry/instance-heartbeat.ts'
import { createRollups, noRollups, type Rollups } from './ledger/rollups.ts'
import { createQuarantine } from './in-flight/quarantine.ts'
import { registerSubscriptions } from './registry/registry.ts'
import { createRouter } from './routing/router.ts'
import { readStates, type SubscriptionState } from './flow-control/subscription-state.ts'
import type { Subscription } from './subscriptions/subscription.ts'
import { createMaintenance, type Maintenance } from './maintenance/maintenance.ts'
import { startWorker, Workers } from './worker/worker.ts'

/** The delivery side of one process. */
export interface Delivery {
  readonly relayState: RelayState
  /** Whether notifications of the database arrive. */
  readonly isListening: boolean
  /** Handlers that are still running after their attempt ended. */
  readonly overrunningHandlerCount: number
  /** The loops of this process. */
  readonly loops: readonly LoopProgress[]
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
  /** Called when operations may have something to do: see src/operations/operation-runner.ts. */
  readonly onOperations: () => void
}

/**
 * Repairs sequences and partitions and registers the subscriptions, then starts the workers, the relay and the
 * maintenance of one process.
 */
export async function startDelivery(parts: DeliveryParts): Promise<Delivery> {
  const { database, catalogue, service, instanceId, subscriptions, logger } = parts
  const exactlyOnceCount = subscriptions.filter(({ mode }) => mode === 'exactly-once').length
  if (exactlyOnceCount > 0) await database.drizzle.load()
  await repairSequences(database, logger)
  const partitions = createPartitionKeeper(database, logger)
  const hasPartitions = await partitions.keep()
  const boss = await openBoss(database, service, logger, { registerInstance: true })
  const handlerPool = exactlyOnceCount > 0 ? createHandlerPool(database, exactlyOnceCount) : undefined
  const events = createEventReader(database, subscriptions.length)
  const workers = new Workers(database, events)
  const rollups = createRollups(database, instanceId, logger)
  const maintenance = createMaintenance({ database, boss, partitions, hasPartitions, logger })
  let instance: InstanceHeartbeat | undefined
  try {
    const registrations = new Map(await registerSubscriptions(database, boss, service, subscriptions))
    instance = await startInstanceHeartbeat({
      ...{ database, boss, service, instanceId, subscriptions, registrations, logger },
      onOperations: parts.onOperations,
      onRegistered(again) {
        for (const [name, registration] of again) registrations.set(name, registration)
      },
    })
    await startWorkers(parts, { boss, events, handlerPool, workers, maintenance, registrations, rollups })
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
  const started = { service, instanceId, version, subscriptionCount: subscriptions.length }
  logger.info(started, 'the bus has started')

  return {
    get relayState() {
      return relay.state
    },
    get isListening() {
      return notifier.connected
    },
    get overrunningHandlerCount() {
      return workers.overrunCount
    },
    get loops() {
      return [relay.progress, maintenance.progress, ...workers.progress]
    },
    followStates: async () => workers.followStates(),
    async stop(graceMs) {
      await database.faultPoint?.('stop.began')
      const relayStopped = relay.stop()
      await Promise.all([relayStopped, maintenance.stop(), workers.stop(graceMs, relayStopped)])
      await database.faultPoint?.('stop.workers-stopped')
      await rollups.stop()
      await handlerPool?.close()
      await notifier.close()
      // If the database is down, other processes detect it by the missing heartbeat.
      await instance.leave().catch(() => {})
      await boss.stop({ graceful: false })
    },
  }
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

interface WorkerSetup {
  readonly boss: PgBoss
  readonly events: EventReader
  readonly handlerPool: HandlerPool | undefined
  readonly workers: Workers
  readonly maintenance: Maintenance
  readonly registrations: ReadonlyMap<string, Registration>
  readonly rollups: Rollups
}

/** Starts a worker for each subscription of this process. */
async function startWorkers(
  { database, catalogue, subscriptions, publishing, instanceId, logger }: DeliveryParts,
  { boss, events, handlerPool, workers, maintenance, registrations, rollups }: WorkerSetup,
): Promise<void> {
  const quarantine = createQuarantine()
  const ids = [...registrations.values()].map(({ subscriptionId }) => subscriptionId)
  const states = await readStates(database, ids)
  for (const declared of subscriptions) {
    // A copy, so that queue-wide options follow the newest declaration, whichever process it belongs to.
    const subscription: RunningSubscription = { ...declared }
    const { name } = subscription
    const subscriptionId = registrations.get(name)?.subscriptionId
    if (subscriptionId === undefined) continue
    const state = states.get(subscriptionId) ?? initialState(subscription)
    const onState = (newest: SubscriptionState): void => followQueue(subscription, newest)
    onState(state)
    const declarationId = (): number => registrations.get(name)?.declarationId ?? 0
    const worker = startWorker({
      ...{ catalogue, events, publishing, quarantine, state, onState },
      context: {
        subscription,
        subscriptionId,
        queue: queueName(name),
        database,
        boss,
        logger,
        instanceId,
        rollups: name === canary.subscription ? noRollups : rollups,
      },
      coverage: createCoverage(database, subscription, subscriptionId, declarationId),
      connections: subscription.mode === 'exactly-once' ? handlerPool?.createMember() : undefined,
      requestPoll: () => maintenance.requestPoll(name),
    })
    workers.add(worker)
    maintenance.watch(worker)
  }
}

type RunningSubscription = { -readonly [K in keyof Subscription]: Subscription[K] }

function initialState({ retry, onKeyFailure }: Subscription): SubscriptionState {
  return { retry, onKeyFailure, paused: false, probeInMs: undefined }
}

/** Retries and the failure rule of keys belong to the queue: they are those of the newest declaration, not of this process's. */
function followQueue(subscription: RunningSubscription, { retry, onKeyFailure }: SubscriptionState): void {
  subscription.retry = retry
  if (onKeyFailure !== undefined) subscription.onKeyFailure = onKeyFailure
}
