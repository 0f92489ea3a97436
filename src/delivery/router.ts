import type pg from 'pg'
import type { JobInsert, JobWithMetadata, PgBoss } from 'pg-boss'
import type { FaultHook } from '../events/fault-points.ts'
import { compilePatterns } from '../events/pattern.ts'
import type { BusClient } from '../outbox/bus-client.ts'
import type { Commit } from '../outbox/database.ts'
import { wakePayload, wakeSql } from '../outbox/doorbell.ts'
import type { ClaimedEvent, Dispatch } from '../outbox/relay.ts'
import { inTransaction, preparedIn } from './boss.ts'
import { planJobs, type Wanted } from './fair-batches.ts'
import { fanOut } from './fan-out.ts'
import { firstAttemptJob, maxBatchBytes, splitIntoBatches, type JobData } from './job.ts'
import { enqueueOrdered } from './ordered.ts'
import { ensureQueues, loadSubscriptions, type RegisteredSubscription } from './registry.ts'
import { sendTogether, type BossCall } from './send-together.ts'
import { queueName } from './subscription.ts'

/** The workers of this process, as the router sees them. */
export interface LocalWorkers {
  /** Whether this process has a worker for a subscription that would take a job at once. */
  isFree: (subscriptionId: number) => boolean
  /** Tells the worker of a subscription, if there is one, that jobs are there. */
  wake: (subscriptionId: number) => void
  /** Hands jobs over that were fetched on behalf of a worker. */
  adopt: (subscriptionId: number, jobs: readonly JobWithMetadata<JobData>[], fetchedAt: number) => void
  /** Begins to read events that workers of this process are about to deliver. */
  prefetch: (eventIds: readonly string[]) => void
}

/** Claims up to this size go straight to free workers of this process: fetched in the transaction that inserts them. */
const maxDirectEvents = 16

/** One more than the job that was just inserted: if it comes too, there may be others. */
const directFetchSize = 2
const directFetch = { batchSize: directFetchSize, includeMetadata: true } as const

interface Route {
  readonly id: number
  readonly subscription: RegisteredSubscription
  readonly matches: (type: string) => boolean
}

/**
 * Makes the relay's dispatch: finds the subscriptions of each claimed event and inserts their pg-boss jobs in the
 * claiming transaction. The registry is read again whenever it changed.
 */
export function createRouter(
  boss: PgBoss,
  instanceId: string,
  workers: LocalWorkers,
  reach: FaultHook | undefined,
): Dispatch {
  let routes: readonly Route[] = []
  let stamp: string | undefined

  async function loadRoutes(client: pg.ClientBase, registryStamp: string): Promise<readonly Route[]> {
    if (stamp !== registryStamp) {
      const subscriptions = await loadSubscriptions(client)
      routes = subscriptions.map((subscription) => ({
        id: subscription.id,
        subscription,
        matches: compilePatterns(subscription.patterns),
      }))
      stamp = registryStamp
    }
    return routes
  }

  return async (client, claimed, registryStamp, commit, leave) => {
    const dispatched = new Map<number, number>()
    const afterCommit: (() => void)[] = []
    const wanted: Wanted[] = []
    const { shares, left } = fanOut(claimed, await loadRoutes(client, registryStamp))
    for (const [{ subscription }, matched] of shares) {
      const events = await narrow(client, subscription, matched)
      if (events.length > 0) wanted.push({ subscription, events })
    }
    if (left.size > 0) await leave(left)
    await reach?.('relay.routed')
    const direct = claimed.length <= maxDirectEvents ? wanted.filter(mayGoDirectly) : []
    if (direct.length > 0) workers.prefetch(claimed.map(({ id }) => id))
    if (direct.length > 0 && direct.length === wanted.length && reach === undefined)
      return deliverAtOnce(client, direct, commit)
    for (const each of direct) afterCommit.push(await deliverDirectly(client, each))
    const queued = wanted.filter((each) => !direct.includes(each))
    const inLine = queued.filter(({ subscription }) => subscription.ordered !== true)
    const planned = inLine.length === 0 ? [] : await planJobs(client, inLine)
    for (const each of queued) {
      const { subscription } = each
      const jobs =
        subscription.ordered === true
          ? await planOrderedJobs(client, each)
          : (planned[inLine.indexOf(each)] ?? [])
      // Every key is busy: their next jobs follow when those are done.
      if (jobs.length === 0) continue
      await insertJobs(client, subscription, jobs)
      dispatched.set(subscription.id, jobs.length)
    }
    if (dispatched.size > 0) await notifyOthers(client, dispatched)
    return () => {
      for (const handOver of afterCommit) handOver()
      for (const id of dispatched.keys()) workers.wake(id)
    }
  }

  function mayGoDirectly({ subscription, events }: Wanted): boolean {
    return (
      subscription.ordered !== true &&
      events.length <= subscription.batchSize &&
      (events.length === 1 || bytesOf(events) <= maxBatchBytes) &&
      workers.isFree(subscription.id)
    )
  }

  /**
   * Inserts the job of a few events and fetches it in the same transaction, for a worker beside the relay that has room:
   * one commit less, and nobody to wake. Such a worker takes what is ready at once, so there is no line to stand in.
   */
  async function deliverDirectly(
    client: pg.ClientBase,
    { subscription, events }: Wanted,
  ): Promise<() => void> {
    const ids = events.map(({ id }) => id)
    await insertJobs(client, subscription, [firstAttemptJob(ids, subscription)])
    const fetchedAt = performance.now()
    const jobs = await boss.fetch<JobData>(queueName(subscription.name), {
      ...directFetch,
      ...preparedIn(client),
    })
    await reach?.('relay.fetched-for-worker')
    return () => {
      workers.adopt(subscription.id, jobs, fetchedAt)
      if (jobs.length === directFetchSize) workers.wake(subscription.id)
    }
  }

  /**
   * The same for all that a claim brings, and the commit behind it, in one round trip: nothing of it needs the answer
   * of what goes before. Where a statement fails, the server rolls back in place of the commit.
   */
  async function deliverAtOnce(
    client: pg.ClientBase,
    direct: readonly Wanted[],
    commit: Commit,
  ): Promise<() => void> {
    const fetchedAt = performance.now()
    const calls = direct.flatMap(({ subscription, events }): readonly BossCall[] => {
      const queue = queueName(subscription.name)
      const job = firstAttemptJob(
        events.map(({ id }) => id),
        subscription,
      )
      return [
        async (options) => boss.insert(queue, [job], options),
        async (options) => boss.fetch(queue, { ...directFetch, ...options }),
      ]
    })
    const answers = await sendTogether(client as BusClient, commit, calls).catch(async (error: unknown) => {
      for (const { subscription } of direct) await ensureQueues(boss, subscription).catch(() => {})
      throw error
    })
    return () =>
      direct.forEach(({ subscription }, index) => {
        const jobs = answers[index * 2 + 1] as readonly JobWithMetadata<JobData>[]
        workers.adopt(subscription.id, jobs, fetchedAt)
        if (jobs.length === directFetchSize) workers.wake(subscription.id)
      })
  }

  async function insertJobs(
    client: pg.ClientBase,
    subscription: RegisteredSubscription,
    jobs: readonly JobInsert<JobData>[],
  ): Promise<void> {
    try {
      await boss.insert(queueName(subscription.name), [...jobs], inTransaction(client))
    } catch (error) {
      // Somebody deleted the queue. The claim rolls back and is tried again: with the queue there.
      await ensureQueues(boss, subscription).catch(() => {})
      throw error
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

function bytesOf(events: readonly ClaimedEvent[]): number {
  return events.reduce((bytes, { payloadBytes }) => bytes + payloadBytes, 0)
}

/** Leaves the events whose payload fulfils the subscription's predicate. PostgreSQL decides; errors in it are false. */
async function narrow(
  client: pg.ClientBase,
  subscription: RegisteredSubscription,
  matched: readonly ClaimedEvent[],
): Promise<readonly ClaimedEvent[]> {
  if (subscription.where === undefined || matched.length === 0) return matched
  const { rows } = await client.query<{ id: string }>(
    'select unnest(bus.fulfilling_events($1::uuid[], $2::jsonpath)) as id',
    [matched.map((event) => event.id), subscription.where],
  )
  const fulfilling = new Set(rows.map((row) => row.id))
  return matched.filter((event) => fulfilling.has(event.id))
}

/** The jobs of keys have no place in the line: what an ordered subscription gets beside them has none either. */
async function planOrderedJobs(
  client: pg.ClientBase,
  { subscription, events }: Wanted,
): Promise<JobInsert<JobData>[]> {
  const hasKey = ({ orderingKey }: ClaimedEvent): boolean => orderingKey !== undefined
  const free = events.filter((event) => !hasKey(event))
  return [
    ...splitIntoBatches(free, subscription.batchSize).map((ids) => firstAttemptJob(ids, subscription)),
    ...(await enqueueOrdered(client, subscription.id, subscription, events.filter(hasKey))),
  ]
}
