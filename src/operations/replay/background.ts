import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import { inTransaction, unstartedBoss } from '../../delivery/jobs/boss.ts'
import { backgroundJobs, type NewJob, type ReplayOfJob } from '../../delivery/jobs/job.ts'
import { JobWriter } from '../../delivery/jobs/job-writer.ts'
import { countBackgroundEvents } from '../../delivery/jobs/queue-state/background-jobs.ts'
import { queueName } from '../../delivery/jobs/queues.ts'
import { enqueueReplayed } from '../../delivery/ordering/ordered-keys.ts'
import type { RegisteredSubscription } from '../../delivery/registry/registry.ts'
import type { RoutedEvents } from '../../delivery/routing/plan-jobs.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'

/** With so many events of a replay or a catch-up waiting for a subscription, no more are inserted: a second's work of a fast handler. */
const maxWaitingEvents = 4000

/** In an ordered subscription, where a live event waits behind those of its key. */
const maxWaitingOrderedEvents = 1000

/** Jobs that are looked at, at most, to count their events. */
const maxCountedJobs = 1000

/** How soon is looked again while as many wait as may. */
export const fullPauseMs = 100

/** Inserts jobs for events of the log in the transaction of an operation's part. */
export interface BackgroundQueue {
  /** Resolves to the number of events that wait there now. Counts no more than it takes to know that these are enough. */
  countWaiting: (replay: ReplayOfJob | undefined) => Promise<number>
  insert: (routed: readonly RoutedEvents[], replay: ReplayOfJob | undefined) => Promise<void>
  readonly maxWaiting: number
}

export function openBackgroundQueue(
  client: pg.ClientBase,
  database: Database,
  logger: BusLogger,
  subscription: RegisteredSubscription,
): BackgroundQueue {
  const queue = queueName(subscription.name)
  const maxWaiting = subscription.ordered === true ? maxWaitingOrderedEvents : maxWaitingEvents

  async function countInKeys(replay: ReplayOfJob | undefined): Promise<number> {
    const { rows } =
      replay === undefined
        ? await client.query<{ count: number }>(
            `select count(*)::int as count from (
               select from bus.ordered_keys k join bus.ordered_events e on e.key_id = k.id and e.seq > k.done_seq
               where k.subscription_id = $1 limit ${maxWaiting}) e`,
            [subscription.id],
          )
        : await client.query<{ count: number }>(
            `select count(*)::int as count from (
               select from bus.ordered_events e where e.replay_id = $1 limit ${maxWaiting}) e`,
            [replay.ledgerId],
          )
    return rows[0]?.count ?? 0
  }

  /** Those that failed and wait for another attempt. */
  async function countRetrying(replay: ReplayOfJob | undefined): Promise<number> {
    const { rows } = await client.query<{ count: number }>(
      `select count(*)::int as count from (
         select from bus.failing where subscription_id = $1 and state = 'retrying' limit ${maxWaiting}) f`,
      [replay?.ledgerId ?? subscription.id],
    )
    return rows[0]?.count ?? 0
  }

  return {
    maxWaiting,
    async countWaiting(replay) {
      const waiting = await countBackgroundEvents(client, database, queue, maxCountedJobs)
      const inKeys = subscription.ordered === true ? await countInKeys(replay) : 0
      return Math.max(waiting, inKeys) + (await countRetrying(replay))
    },
    async insert(routed, replay) {
      const jobs: NewJob[] = []
      for (const { events, declarations } of routed) {
        const isOfKey = ({ orderingKey }: (typeof events)[number]): boolean =>
          subscription.ordered === true && orderingKey !== undefined
        const free = events.filter((event) => !isOfKey(event))
        jobs.push(...backgroundJobs(free, subscription, declarations, replay))
        jobs.push(
          ...(await enqueueReplayed(client, subscription.id, subscription, events.filter(isOfKey), replay)),
        )
      }
      if (jobs.length === 0) return
      const boss = unstartedBoss(database, logger, inTransaction(client))
      await new JobWriter(client, { boss, queue, database }).insert(jobs)
      await client.query(wakeSql, [wakePayload('', [subscription.id])])
    },
  }
}
