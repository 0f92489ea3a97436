import type pg from 'pg'
import type { PgBoss } from 'pg-boss'
import { compilePatterns } from '../events/pattern.ts'
import { wakePayload, wakeSql } from '../outbox/doorbell.ts'
import type { ClaimedEvent, Dispatch } from '../outbox/relay.ts'
import { inTransaction } from './boss.ts'
import { planJobs, type Wanted } from './fair-batches.ts'
import { enqueueOrdered } from './ordered.ts'
import { ensureQueues, loadSubscriptions, type RegisteredSubscription } from './registry.ts'
import { queueName } from './subscription.ts'

/** The workers of this process, as the router sees them. */
export interface LocalWorkers {
  /** Whether this process has a worker for a subscription that would take a job at once. */
  isFree: (subscriptionId: number) => boolean
  /** Tells the worker of a subscription, if there is one, that jobs are there. */
  wake: (subscriptionId: number) => void
}

interface Route {
  readonly subscription: RegisteredSubscription
  readonly matches: (type: string) => boolean
}

/**
 * Makes the relay's dispatch: finds the subscriptions of each claimed event and inserts their pg-boss jobs in the
 * claiming transaction. The registry is read again whenever it changed.
 */
export function createRouter(boss: PgBoss, instanceId: string, workers: LocalWorkers): Dispatch {
  let routes: readonly Route[] = []
  let stamp: string | undefined

  async function loadRoutes(client: pg.ClientBase, registryStamp: string): Promise<readonly Route[]> {
    if (stamp !== registryStamp) {
      const subscriptions = await loadSubscriptions(client)
      routes = subscriptions.map((subscription) => ({
        subscription,
        matches: compilePatterns(subscription.patterns),
      }))
      stamp = registryStamp
    }
    return routes
  }

  return async (client, claimed, registryStamp) => {
    const dispatched = new Map<number, number>()
    const wanted: Wanted[] = []
    for (const { subscription, matches } of await loadRoutes(client, registryStamp)) {
      const events = await narrow(
        client,
        subscription,
        claimed.filter((event) => matches(event.type)),
      )
      if (events.length > 0) wanted.push({ subscription, events })
    }
    if (wanted.length === 0) return () => {}
    const planned = await planJobs(client, wanted.map(withoutKeys))
    for (const [index, { subscription, events }] of wanted.entries()) {
      const inOrder = subscription.ordered === true ? events.filter(hasKey) : []
      const jobs = [
        ...(planned[index] ?? []),
        ...(await enqueueOrdered(client, subscription.id, subscription, inOrder)),
      ]
      // Every key is busy: their next jobs follow when those are done.
      if (jobs.length === 0) continue
      try {
        await boss.insert(queueName(subscription.name), [...jobs], inTransaction(client))
      } catch (error) {
        // Somebody deleted the queue. The claim rolls back and is tried again: with the queue there.
        await ensureQueues(boss, subscription).catch(() => {})
        throw error
      }
      dispatched.set(subscription.id, jobs.length)
    }
    if (dispatched.size > 0) await notifyOthers(client, dispatched)
    return () => {
      for (const id of dispatched.keys()) workers.wake(id)
    }
  }

  /** A single job goes to the worker beside the relay when it is free; more are shared with other processes. */
  async function notifyOthers(client: pg.ClientBase, dispatched: ReadonlyMap<number, number>): Promise<void> {
    const others = [...dispatched]
      .filter(([id, jobCount]) => !(jobCount === 1 && workers.isFree(id)))
      .map(([id]) => id)
    if (others.length > 0) await client.query(wakeSql, [wakePayload(instanceId, others)])
  }
}

/** Leaves the events whose payload fulfils the subscription's predicate. PostgreSQL decides; errors in it are false. */
async function narrow(
  client: pg.ClientBase,
  subscription: RegisteredSubscription,
  matched: readonly ClaimedEvent[],
): Promise<readonly ClaimedEvent[]> {
  if (subscription.where === undefined || matched.length === 0) return matched
  const { rows } = await client.query<{ id: string }>(
    'select id from bus.events where id = any($1::uuid[]) and payload @@ $2::jsonpath',
    [matched.map((event) => event.id), subscription.where],
  )
  const fulfilling = new Set(rows.map((row) => row.id))
  return matched.filter((event) => fulfilling.has(event.id))
}

function hasKey(event: ClaimedEvent): boolean {
  return event.orderingKey !== undefined
}

/** What of an ordered subscription's events has no order. */
function withoutKeys({ subscription, events }: Wanted): Wanted {
  if (subscription.ordered !== true) return { subscription, events }
  return { subscription, events: events.filter((event) => !hasKey(event)) }
}
