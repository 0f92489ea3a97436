import type { PgBoss } from 'pg-boss'
import type { Database } from '../database/database.ts'
import { StateError } from '../foundation/errors.ts'
import { invalidOption } from '../foundation/options.ts'
import type { BusLogger } from '../foundation/logger.ts'
import type { Maintenance } from './maintenance/maintenance.ts'
import type { OnCatchUp } from './registry/catch-up.ts'
import type { Registration } from './registry/declarations.ts'
import type { InstanceHeartbeat } from './registry/instance-heartbeat.ts'
import { registerSubscriptions } from './registry/registry.ts'
import type { Subscription } from './subscriptions/subscription.ts'
import type { Workers } from './worker/worker.ts'

/** Adds subscriptions to a process that runs, and takes them out. */
export interface ServedChanges {
  readonly add: (subscription: Subscription) => Promise<void>
  readonly remove: (name: string, graceMs: number) => Promise<void>
  /** From now on nothing is added. Resolves when what is under way is over. */
  readonly stop: () => Promise<void>
}

export interface ServedChangesParts {
  readonly database: Database
  readonly boss: PgBoss
  readonly service: string
  readonly logger: BusLogger
  /** The subscriptions that this process serves. */
  readonly served: Subscription[]
  /** By name, as they were registered. */
  readonly registrations: Map<string, Registration>
  readonly workers: Workers
  readonly maintenance: Maintenance
  readonly instance: InstanceHeartbeat
  readonly startWorkers: (subscriptions: readonly Subscription[]) => Promise<void>
  readonly onCatchUp: OnCatchUp
  readonly onAdded: (subscription: Subscription) => void
}

/** A claim that has chosen the worker of this process before it stopped hands over its jobs within this time. */
const lastClaimMs = 500

/** One change at a time. */
export function createServedChanges(parts: ServedChangesParts): ServedChanges {
  const { database, boss, service, logger, served, registrations, workers, maintenance, instance } = parts
  let last: Promise<unknown> = Promise.resolve()
  let isStopped = false

  async function inTurn(change: () => Promise<void>): Promise<void> {
    const changed = last.then(change)
    last = changed.catch(() => {})
    await changed
  }

  /** If the database is down, the next heartbeat says it. */
  async function forget(name: string): Promise<void> {
    const index = served.findIndex((each) => each.name === name)
    if (index !== -1) served.splice(index, 1)
    registrations.delete(name)
    await instance.announce().catch(() => instance.recheckRegistration())
  }

  return {
    add: async (subscription) =>
      inTurn(async () => {
        const { name, mode } = subscription
        if (isStopped)
          throw new StateError(`Expected the bus to run when \`${name}\` is added: it was stopped`)
        if (mode === 'exactly-once') {
          if (!database.mayAddHandlers)
            throw invalidOption(
              `Expected the exactly-once subscription \`${name}\` before start(): with \`max\` the connections of \`database\` are divided at the start, and none is left for its handlers`,
              'database',
            )
          await database.shareConnections(true)
          await database.drizzle.load()
        }
        const registered = await registerSubscriptions(
          database,
          boss,
          service,
          [subscription],
          new Map(),
          parts.onCatchUp,
        )
        for (const each of registered) registrations.set(...each)
        served.push(subscription)
        try {
          // At once, so that other processes know that it is served.
          await instance.announce()
          await parts.startWorkers([subscription])
        } catch (error) {
          await forget(name)
          throw error
        }
        maintenance.requestPoll(name)
        parts.onAdded(subscription)
        logger.info({ subscription: name }, 'a subscription was added to this process')
      }),
    remove: async (name, graceMs) =>
      inTurn(async () => {
        const id = registrations.get(name)?.subscriptionId
        // A stop of the bus stops all of them.
        if (id === undefined || isStopped) return
        await workers.stopOne(id, graceMs, database.pause(Math.min(graceMs, lastClaimMs)))
        maintenance.unwatch(name)
        await forget(name)
        logger.info({ subscription: name }, 'a subscription was taken out of this process')
      }),
    async stop() {
      isStopped = true
      await last
    },
  }
}
