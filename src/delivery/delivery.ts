import type { EventCatalogue } from '../events/catalogue.ts'
import type { BusLogger } from '../events/logger.ts'
import type { Database } from '../outbox/database.ts'
import { openDoorbell } from '../outbox/doorbell.ts'
import { startRelay, type RelayState } from '../outbox/relay.ts'
import type { PublishCaused } from './attempt.ts'
import { createBoss } from './boss.ts'
import { createEventReader } from './event-store.ts'
import { createHandlerPool } from './handler-connections.ts'
import { createQuarantine } from './quarantine.ts'
import { registerSubscriptions } from './registry.ts'
import { createRouter, type LocalWorkers } from './router.ts'
import { readStates } from './subscription-state.ts'
import type { Subscription } from './subscription.ts'
import { startUpkeep, type Upkeep } from './upkeep.ts'
import { startWorker } from './worker.ts'
import type { Worker } from './worker-parts.ts'

/** What of a process delivers events. */
export interface Delivery {
  readonly relayState: RelayState
  /** Whether the notifications of the database arrive. */
  readonly isListening: boolean
  stop: (graceMs: number) => Promise<void>
}

export interface DeliveryParts {
  readonly database: Database
  readonly catalogue: EventCatalogue
  readonly service: string
  readonly instanceId: string
  readonly subscriptions: readonly Subscription[]
  readonly logger: BusLogger
  readonly publishCaused: PublishCaused
}

/** Registers the subscriptions, then starts the workers, the relay and the upkeep of one process. */
export async function startDelivery(parts: DeliveryParts): Promise<Delivery> {
  const { database, catalogue, service, instanceId, subscriptions, logger, publishCaused } = parts
  const boss = createBoss(database, service, logger, { migrate: false })
  await boss.start()
  const workers = new Map<number, Worker>()
  const events = createEventReader(database, subscriptions.length)
  const quarantine = createQuarantine()
  let upkeep: Upkeep | undefined
  const exactlyOnceCount = subscriptions.filter(({ mode }) => mode === 'exactly-once').length
  const handlerPool = exactlyOnceCount > 0 ? createHandlerPool(database, exactlyOnceCount) : undefined
  try {
    const ids = await registerSubscriptions(database, boss, service, subscriptions)
    const states = await readStates(database, [...ids.values()])
    for (const subscription of subscriptions) {
      const id = ids.get(subscription.name)
      if (id === undefined) continue
      const workerParts = {
        database,
        boss,
        catalogue,
        events,
        logger,
        publishCaused,
        quarantine,
        state: states.get(id) ?? { paused: false, probeInMs: undefined },
        connections: subscription.mode === 'exactly-once' ? handlerPool?.connectionsOf() : undefined,
        onFailures: () => upkeep?.soon(subscription.name),
      }
      workers.set(id, startWorker(subscription, id, workerParts))
    }
  } catch (error) {
    await handlerPool?.close()
    await boss.stop({ graceful: false })
    throw error
  }
  const localWorkers = {
    isFree: (id) => workers.get(id)?.isFree ?? false,
    wake: (id) => workers.get(id)?.wake(),
    adopt: (id, jobs, fetchedAt) => workers.get(id)?.adopt(jobs, fetchedAt),
    prefetch: (ids) => events.prefetch(ids),
  } satisfies LocalWorkers
  const router = createRouter(boss, instanceId, localWorkers, database.reach)
  const doorbell = openDoorbell(database, instanceId, logger, {
    onRing: () => relay.ring(),
    onWake: (ids) => {
      for (const id of ids) workers.get(id)?.wake()
    },
    onStateChange: (ids) => {
      const readAt = performance.now()
      readStates(
        database,
        ids.filter((id) => workers.has(id)),
      ).then(
        (states) => {
          for (const [id, state] of states) workers.get(id)?.applyState(state, readAt)
        },
        // Upkeep finds out.
        () => {},
      )
    },
    onConnection: (connected) => {
      if (!connected) return
      // Whatever was notified meanwhile was missed.
      for (const worker of workers.values()) worker.wake()
    },
  })
  const relay = startRelay(database, doorbell, router, logger)
  upkeep = startUpkeep({
    database,
    boss,
    workers: [...workers.values()],
    // Without a bell there is no leader: each process does what does no harm when done twice.
    isLeader: () => doorbell.leading || doorbell.polling,
    isPolling: () => doorbell.polling,
    logger,
  })

  return {
    get relayState() {
      return relay.state
    },
    get isListening() {
      return doorbell.connected
    },
    async stop(graceMs) {
      await database.reach?.('stop.began')
      const relayStopped = relay.stop()
      const stops = [...workers.values()].map(async (worker) => worker.stop(graceMs, relayStopped))
      await Promise.all([relayStopped, upkeep?.stop(), ...stops])
      await database.reach?.('stop.workers-stopped')
      await handlerPool?.close()
      await doorbell.close()
      await boss.stop({ graceful: false })
    },
  }
}
