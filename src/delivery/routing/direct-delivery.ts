import type pg from 'pg'
import type { JobWithMetadata, PgBoss } from 'pg-boss'
import type { BusClient } from '../../database/bus-client.ts'
import type { Commit, Database } from '../../database/database.ts'
import type { ClaimedEvent } from '../../outbox/relay/claim.ts'
import { preparedIn } from '../jobs/boss.ts'
import { directPriority, firstJob, splitIntoBatches, type JobData } from '../jobs/job.ts'
import { sendTogether, type BossCall } from '../jobs/pipelined-calls.ts'
import { queueName } from '../jobs/queues.ts'
import type { RoutedEvents } from './plan-jobs.ts'
import { insertJobs, restoreQueues } from './insert-jobs.ts'

/**
 * Claims up to this size go directly to free workers of this process: their jobs are fetched in the transaction that
 * inserts them.
 */
const maxDirectEvents = 16

/** One more than the job that was just inserted: if two jobs are returned, there may be more. */
const directFetchSize = 2

/** Finds the job by its priority, however many entries of settled jobs precede it in pg-boss's index. */
const directFetch = (priority: number) =>
  ({
    batchSize: directFetchSize,
    includeMetadata: true,
    minPriority: priority,
    maxPriority: priority,
  }) as const

/** The workers of this process, as the router uses them. */
export interface LocalWorkers {
  /** The subscriptions that have a worker. */
  readonly subscriptionIds: Iterable<number>
  /**
   * Whether this process has a worker for a subscription that covers these types and would start a job with such events
   * immediately.
   *
   * @param declarations - the declarations whose predicate the events satisfy, if there are predicates
   */
  isFree: (
    subscriptionId: number,
    types: readonly string[],
    declarations: readonly number[] | undefined,
  ) => boolean
  /** Notifies the worker of a subscription, if there is one, of new jobs. */
  wake: (subscriptionId: number) => void
  /** Passes jobs to a worker on whose behalf they were fetched. */
  adopt: (subscriptionId: number, jobs: readonly JobWithMetadata<JobData>[], fetchedAt: number) => void
  /** Starts to read events that workers of this process are about to deliver. */
  prefetch: (eventIds: readonly string[]) => void
}

/**
 * Delivers the events of a small claim to free workers of this process: their jobs are inserted and fetched in the claiming
 * transaction. That saves a commit and a notification. A free worker takes ready jobs immediately, so fairness does not matter.
 */
export interface DirectDelivery {
  /** The events of a claim that can be delivered in this way. */
  choose: (claimed: readonly ClaimedEvent[], routed: readonly RoutedEvents[]) => readonly RoutedEvents[]
  /** Inserts and fetches the job of one subscription. What it resolves to is called after the commit. */
  deliver: (client: pg.ClientBase, events: RoutedEvents) => Promise<() => void>
  /**
   * The same for all events of a claim, with the commit, in one round trip, because no statement needs an earlier answer. If a
   * statement fails, the server rolls back instead of committing.
   */
  deliverAndCommit: (
    client: pg.ClientBase,
    events: readonly RoutedEvents[],
    commit: Commit,
  ) => Promise<() => void>
}

export function createDirectDelivery(
  boss: PgBoss,
  { faultPoint }: Pick<Database, 'faultPoint'>,
  workers: LocalWorkers,
): DirectDelivery {
  function isPossible({ subscription, events, declarations }: RoutedEvents): boolean {
    return (
      subscription.ordered !== true &&
      events.length <= subscription.batchSize &&
      (events.length === 1 || splitIntoBatches(events, subscription.batchSize).length === 1) &&
      workers.isFree(
        subscription.id,
        events.map(({ type }) => type),
        declarations,
      )
    )
  }

  function handOver(
    { subscription }: RoutedEvents,
    jobs: readonly JobWithMetadata<JobData>[],
    fetchedAt: number,
  ): void {
    workers.adopt(subscription.id, jobs, fetchedAt)
    if (jobs.length === directFetchSize) workers.wake(subscription.id)
  }

  return {
    choose(claimed, routed) {
      if (claimed.length > maxDirectEvents) return []
      const chosen = routed.filter(isPossible)
      if (chosen.length > 0) workers.prefetch(claimed.map(({ id }) => id))
      return chosen
    },
    async deliver(client, routed) {
      const priority = directPriority()
      await insertJobs(client, boss, routed.subscription, [directJob(routed, priority)])
      const fetchedAt = performance.now()
      const jobs = await boss.fetch<JobData>(queueName(routed.subscription.name), {
        ...directFetch(priority),
        ...preparedIn(client),
      })
      await faultPoint?.('relay.fetched-for-worker')
      return () => handOver(routed, jobs, fetchedAt)
    },
    async deliverAndCommit(client, all, commit) {
      const fetchedAt = performance.now()
      const priority = directPriority()
      const calls = all.flatMap((routed): readonly BossCall[] => {
        const queue = queueName(routed.subscription.name)
        const job = directJob(routed, priority)
        return [
          async (options) => boss.insert(queue, [job], options),
          async (options) => boss.fetch(queue, { ...directFetch(priority), ...options }),
        ]
      })
      const commitLast: Commit = async () => {
        await faultPoint?.('relay.fetched-for-worker')
        await commit()
      }
      const answers = await sendTogether(client as BusClient, commitLast, calls).catch((error: unknown) => {
        restoreQueues(
          boss,
          all.map(({ subscription }) => subscription),
          error,
        )
        throw error
      })
      return () =>
        all.forEach((routed, index) =>
          handOver(routed, answers[index * 2 + 1] as readonly JobWithMetadata<JobData>[], fetchedAt),
        )
    },
  }
}

function directJob({ subscription, events, declarations }: RoutedEvents, priority: number) {
  return { ...firstJob(events, subscription, declarations), priority }
}
