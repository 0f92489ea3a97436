import type pg from 'pg'
import type { JobInsert, PgBoss } from 'pg-boss'
import type { Database } from '../../database/database.ts'
import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'
import {
  unlessLocked,
  type ClaimedEvent,
  type Dispatch,
  type DispatchTerms,
} from '../../outbox/relay/claim.ts'
import { createDirectDelivery, type LocalWorkers } from './direct-delivery.ts'
import { insertJobs } from './insert-jobs.ts'
import { planJobs, type RoutedEvents } from './plan-jobs.ts'
import { holdEvents } from './hold-events.ts'
import { firstJob, splitIntoBatches, type JobData } from '../jobs/job.ts'
import { ensureQueues, queueName } from '../jobs/queues.ts'
import { enqueueOrdered } from '../ordering/ordered-keys.ts'
import { assertComplete } from '../registry/instance-heartbeat.ts'
import { noteDispatched } from '../registry/catch-up.ts'
import { loadSubscriptions, type RegisteredSubscription } from '../registry/registry.ts'
import { findRoutedEvents, findRoutedEventsByMonth, toRoute, type Route } from './match-events.ts'

/**
 * Maximum number of subscriptions that one claim serves. Inserting into a queue locks its table and a dozen indexes
 * until the claim has committed, and the locks of all concurrent claims must fit the server's lock table, with some
 * 6,400 locks by default.
 */
const maxFanOut = 32

/**
 * Creates the relay's dispatch function: it finds the subscriptions of each claimed event and inserts their pg-boss
 * jobs in the claiming transaction. The registry is reloaded after every change.
 */
export function createRouter(
  boss: PgBoss,
  database: Pick<Database, 'bossSchema' | 'faultPoint' | 'pool'>,
  instanceId: string,
  workers: LocalWorkers,
  onIncomplete: () => void,
): Dispatch {
  const { faultPoint, pool } = database
  const queues = createKnownQueues(boss, () => pool.options.max === 1)
  const directDelivery = createDirectDelivery(boss, { faultPoint }, workers)
  let routes: readonly Route[] = []
  let stamp: string | undefined

  async function loadRoutes(client: pg.ClientBase, registryStamp: string): Promise<readonly Route[]> {
    if (stamp !== registryStamp) {
      const subscriptions = await loadSubscriptions(client)
      await assertComplete(client, subscriptions, workers.subscriptionIds).catch((error: unknown) => {
        onIncomplete()
        throw error
      })
      routes = subscriptions.map(toRoute)
      stamp = registryStamp
    }
    return routes
  }

  return async (client, claimed, registryStamp, commit, terms) => {
    const current = await loadRoutes(client, registryStamp)
    if (terms.careful || terms.retakenFor !== undefined)
      return dispatchSeparately(client, current, claimed, terms)
    const dispatched = new Map<number, number>()
    const afterCommit: (() => void)[] = []
    const routed: RoutedEvents[] = []
    let servedCount = 0
    for (const route of current) {
      const { subscription } = route
      const matched = claimed.filter((event) => route.matches(event.type))
      if (matched.length === 0) continue
      if (servedCount === maxFanOut) {
        await noteDispatched(client, subscription, matched)
        await holdForNextClaim(client, subscription, matched, terms)
        continue
      }
      servedCount += 1
      await noteDispatched(client, subscription, matched)
      if (waitsForCatchUp(subscription) || terms.isClosed(subscription.id))
        await holdEvents(client, subscription, matched)
      else if (!queues.canTakeJobs(subscription)) {
        await holdEvents(client, subscription, matched)
        terms.onHeld(subscription.id, 'subscription')
      } else routed.push(...(await findRoutedEvents(client, route, matched)))
    }
    await faultPoint?.('relay.routed')
    const direct = directDelivery.choose(claimed, routed)
    if (direct.length > 0 && direct.length === routed.length)
      return directDelivery.deliverAndCommit(client, direct, commit)
    for (const each of direct) afterCommit.push(await directDelivery.deliver(client, each))
    const queued = routed.filter((each) => !direct.includes(each))
    const unordered = queued.filter(({ subscription }) => subscription.ordered !== true)
    const planned = unordered.length === 0 ? [] : await planJobs(client, database, unordered)
    for (const each of queued) {
      const { subscription } = each
      const jobs =
        subscription.ordered === true
          ? await planOrderedJobs(client, each, terms)
          : (planned[unordered.indexOf(each)] ?? [])
      // Every key is busy: their next jobs follow when the current ones are done.
      if (jobs.length === 0) continue
      await insertJobs(client, boss, subscription, jobs)
      dispatched.set(subscription.id, (dispatched.get(subscription.id) ?? 0) + jobs.length)
    }
    if (dispatched.size > 0) await notifyOthers(client, dispatched)
    return () => {
      for (const handOver of afterCommit) handOver()
      for (const id of dispatched.keys()) workers.wake(id)
    }
  }

  /**
   * The same for each subscription separately, because one of them meets a lock: its events are held back, and the
   * others get theirs. Events that were held before belong to one subscription, and stay held if it meets a lock again.
   */
  async function dispatchSeparately(
    client: pg.ClientBase,
    current: readonly Route[],
    claimed: readonly ClaimedEvent[],
    terms: DispatchTerms,
  ): Promise<() => void> {
    const dispatched = new Map<number, number>()
    const { retakenFor } = terms
    let servedCount = 0
    for (const route of current) {
      const { subscription } = route
      if (retakenFor !== undefined && retakenFor !== subscription.id) continue
      const matched =
        retakenFor === undefined ? claimed.filter((event) => route.matches(event.type)) : claimed
      if (matched.length === 0) continue
      if (retakenFor === undefined) {
        await noteDispatched(client, subscription, matched)
        if (waitsForCatchUp(subscription)) {
          await holdEvents(client, subscription, matched)
          continue
        }
      }
      const dispatch = async (): Promise<number> => {
        const { routed, unreadable } = await findRoutedEventsByMonth(
          client,
          route,
          matched,
          retakenFor !== undefined,
        )
        if (unreadable.length > 0) {
          await holdEvents(client, subscription, unreadable)
          terms.onHeld(subscription.id, 'payloads')
        }
        let jobCount = 0
        for (const each of routed) {
          const jobs =
            subscription.ordered === true
              ? await planOrderedJobs(client, each, terms)
              : ((await planJobs(client, database, [each]))[0] ?? [])
          if (jobs.length > 0) await insertJobs(client, boss, subscription, jobs)
          jobCount += jobs.length
        }
        return jobCount
      }
      if (servedCount === maxFanOut) {
        await holdForNextClaim(client, subscription, matched, terms)
        continue
      }
      servedCount += 1
      const isClosed =
        retakenFor === undefined && (terms.isClosed(subscription.id) || !queues.canTakeJobs(subscription))
      const jobCount =
        retakenFor === undefined
          ? isClosed
            ? undefined
            : await unlessLocked(client, dispatch)
          : await dispatch()
      if (jobCount === undefined) {
        await holdEvents(client, subscription, matched)
        terms.onHeld(subscription.id, 'subscription')
      } else if (jobCount > 0) dispatched.set(subscription.id, jobCount)
    }
    await faultPoint?.('relay.routed')
    if (dispatched.size > 0) await notifyOthers(client, dispatched)
    return () => {
      for (const id of dispatched.keys()) workers.wake(id)
    }
  }

  /** A single job is left to a free worker of this process; several jobs are shared with other processes. */
  async function notifyOthers(client: pg.ClientBase, dispatched: ReadonlyMap<number, number>): Promise<void> {
    const others = [...dispatched]
      .filter(([id, jobCount]) => !(jobCount === 1 && workers.isFree(id, [], undefined)))
      .map(([id]) => id)
    if (others.length > 0) await client.query(wakeSql, [wakePayload(instanceId, others)])
  }
}

/** Whether new events wait in the outbox until an ordered subscription has caught up with the log: so each key is in order. */
function waitsForCatchUp({ ordered, catchUpUntil }: RegisteredSubscription): boolean {
  return ordered === true && catchUpUntil !== undefined
}

/**
 * Holds events back for subscriptions beyond the maximum of a claim. Each of them gets its events in a claim of its
 * own, next.
 */
async function holdForNextClaim(
  client: pg.ClientBase,
  subscription: RegisteredSubscription,
  events: readonly ClaimedEvent[],
  terms: DispatchTerms,
): Promise<void> {
  await holdEvents(client, subscription, events)
  terms.onHeld(subscription.id, 'fan-out')
}

/** The jobs of keys have no finish tag, and neither have jobs without a key in an ordered subscription. */
async function planOrderedJobs(
  client: pg.ClientBase,
  { subscription, events }: RoutedEvents,
  { retakenFor, patient, onHeld }: DispatchTerms,
): Promise<JobInsert<JobData>[]> {
  const hasKey = ({ orderingKey }: ClaimedEvent): boolean => orderingKey !== undefined
  const free = events.filter((event) => !hasKey(event))
  const { jobs, isHeld } = await enqueueOrdered(
    client,
    subscription.id,
    subscription,
    events.filter(hasKey),
    {
      retaken: retakenFor !== undefined,
      patient,
    },
  )
  if (isHeld) onHeld(subscription.id, 'keys')
  return [
    ...splitIntoBatches(free, subscription.batchSize).map((batch) => firstJob(batch, subscription)),
    ...jobs,
  ]
}

/**
 * The queues that pg-boss has cached. It reads the options of any other queue when jobs are inserted, on another
 * connection: a claim that holds the only connection would wait for itself.
 */
interface KnownQueues {
  /** Whether jobs of a subscription can be inserted during a claim. If not, its queue is read in the background. */
  canTakeJobs: (subscription: RegisteredSubscription) => boolean
}

const noJob = '00000000-0000-0000-0000-000000000000'

/** @param hasOneConnection - whether claims use the only connection */
function createKnownQueues(boss: PgBoss, hasOneConnection: () => boolean): KnownQueues {
  const known = new Set<string>()

  async function read(subscription: RegisteredSubscription): Promise<void> {
    const name = queueName(subscription.name)
    // Searching for a job makes pg-boss read and cache the queue.
    const look = async (): Promise<unknown> => boss.findJobs(name, { id: noJob })
    await look().catch(async () => ensureQueues(boss, subscription).then(look))
    known.add(name)
  }

  return {
    canTakeJobs(subscription) {
      if (!hasOneConnection() || known.has(queueName(subscription.name))) return true
      void read(subscription).catch(() => {})
      return false
    },
  }
}
