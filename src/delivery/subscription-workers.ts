import type { PgBoss } from 'pg-boss'
import type { Database } from '../database/database.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import { canary } from '../events/event-type.ts'
import type { BusLogger } from '../foundation/logger.ts'
import type { HandlerPublishing } from './attempts/context-publisher.ts'
import type { EventReader } from './attempts/event-reader.ts'
import type { HandlerPool } from './exactly-once/handler-connections.ts'
import { readStates, type SubscriptionState } from './flow-control/subscription-state.ts'
import { createQuarantine } from './in-flight/quarantine.ts'
import { queueName } from './jobs/queues.ts'
import { noRollups, type Rollups } from './ledger/rollups.ts'
import type { Maintenance } from './maintenance/maintenance.ts'
import { createCoverage } from './registry/coverage.ts'
import type { Registration } from './registry/declarations.ts'
import type { Subscription } from './subscriptions/subscription.ts'
import { startWorker, type Workers } from './worker/worker.ts'
import { noTelemetry, type Telemetry } from '../telemetry/telemetry.ts'

/** What the workers of a process are made with. */
export interface WorkerSetup {
  readonly database: Database
  readonly catalogue: EventCatalogue
  readonly publishing: HandlerPublishing
  readonly instanceId: string
  readonly logger: BusLogger
  readonly boss: PgBoss
  readonly events: EventReader
  /** Asked for by the first exactly-once subscription. */
  readonly handlerPool: () => HandlerPool
  readonly workers: Workers
  readonly maintenance: Maintenance
  /** By name. Changes when subscriptions come and go, or are registered again. */
  readonly registrations: ReadonlyMap<string, Registration>
  readonly rollups: Rollups
  readonly telemetry: Telemetry
  /** Called when events have become dead letters. */
  readonly onDeadLetters: () => void
}

/** Starts the workers of subscriptions that are registered. */
export function createWorkerStarter(
  setup: WorkerSetup,
): (subscriptions: readonly Subscription[]) => Promise<void> {
  const { database, boss, workers, maintenance, registrations, handlerPool } = setup
  const { catalogue, events, publishing, logger, instanceId, rollups, telemetry, onDeadLetters } = setup
  const quarantine = createQuarantine()

  function start(declared: Subscription, subscriptionId: number, known: SubscriptionState | undefined): void {
    // A copy, so that queue-wide options follow the newest declaration, whichever process it belongs to.
    const subscription: RunningSubscription = { ...declared }
    const { name } = subscription
    const state = known ?? initialState(subscription)
    const onState = (newest: SubscriptionState): void => followQueue(subscription, declared, newest)
    onState(state)
    const queue = queueName(name)
    const declarationId = (): number => registrations.get(name)?.declarationId ?? 0
    const worker = startWorker({
      ...{ catalogue, events, publishing, quarantine, state, onState },
      context: {
        ...{ subscription, subscriptionId, queue, database, boss, logger, instanceId, onDeadLetters },
        rollups: name === canary.subscription ? noRollups : rollups,
        telemetry: name === canary.subscription ? noTelemetry : telemetry,
      },
      coverage: createCoverage(database, subscription, subscriptionId, declarationId),
      connections: subscription.mode === 'exactly-once' ? handlerPool().createMember() : undefined,
      requestPoll: () => maintenance.requestPoll(name),
    })
    workers.add(worker)
    maintenance.watch(worker)
  }

  return async (subscriptions) => {
    const ids = subscriptions.flatMap(({ name }) => registrations.get(name)?.subscriptionId ?? [])
    const states = await readStates(database, ids)
    for (const declared of subscriptions) {
      const id = registrations.get(declared.name)?.subscriptionId
      if (id !== undefined) start(declared, id, states.get(id))
    }
  }
}

type RunningSubscription = { -readonly [K in keyof Subscription]: Subscription[K] }

function initialState({ retry, onKeyFailure }: Subscription): SubscriptionState {
  return { retry, onKeyFailure, concurrency: undefined, paused: false, probeInMs: undefined }
}

/**
 * Retries and the failure rule of keys belong to the queue: they are those of the newest declaration, not of this process's. What an
 * operator has set counts before both.
 */
function followQueue(
  subscription: RunningSubscription,
  declared: Subscription,
  { retry, onKeyFailure, concurrency }: SubscriptionState,
): void {
  subscription.retry = retry
  subscription.concurrency = concurrency ?? declared.concurrency
  if (onKeyFailure !== undefined) subscription.onKeyFailure = onKeyFailure
}
