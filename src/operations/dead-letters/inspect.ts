import type { Database } from '../../database/database.ts'
import { hasQueue } from '../../delivery/jobs/dead-letter-jobs.ts'
import { readDeadLetters, type DeadLetter } from '../../delivery/operator/dead-letters.ts'
import { readLogEvents } from '../../delivery/operator/log-events.ts'
import type { RegisteredSubscription } from '../../delivery/registry/registry.ts'
import { readDeliveries, type AttemptRecord } from '../event-deliveries.ts'

/** A dead letter, its attempts, and what a redrive would do. */
export interface DeadLetterDetails extends DeadLetter {
  /** Every attempt, oldest first, those before earlier redrives among them. */
  readonly timeline: readonly AttemptRecord[]
  /** Events of its key that wait behind it, if it holds the key. The count stops at 10,000. */
  readonly behindCount: number
  readonly redrive: RedriveOutcome
}

/**
 * What a redrive would do. `retry`: the event is tried again. `release-key`: it is tried again, and the events behind it follow.
 * `append-to-key`: it is tried again after the events of its key that wait now. `expire`, `erase`: it is settled without the handler.
 * `no-queue`, `not-in-log`: it would be skipped.
 */
export type RedriveOutcome =
  'retry' | 'release-key' | 'append-to-key' | 'expire' | 'erase' | 'no-queue' | 'not-in-log'

const maxBehindCount = 10_000

/** Undefined if the event is no dead letter of the subscription, or is parked behind another one. */
export async function inspectLetter(
  database: Database,
  subscription: RegisteredSubscription,
  id: string,
): Promise<DeadLetterDetails | undefined> {
  const filter = { subscriptionId: subscription.id, eventIds: [id] }
  const [[letter], events, deliveries] = await Promise.all([
    readDeadLetters(database, 'bus.dead_letters', filter, 1),
    readLogEvents(database, [id]),
    readDeliveries(database, 'event', id),
  ])
  if (letter === undefined) return undefined
  const event = events.get(id)
  const isQueueThere = await hasQueue(database, database, subscription.name)
  const outcome = (): RedriveOutcome => {
    if (!isQueueThere) return 'no-queue'
    if (event === undefined) return 'not-in-log'
    if (event.isErased) return 'erase'
    if (event.isExpired) return 'expire'
    if (letter.blockedKey !== undefined) return 'release-key'
    return subscription.ordered === true && event.orderingKey !== undefined ? 'append-to-key' : 'retry'
  }
  return {
    ...letter,
    timeline: deliveries.find((each) => each.subscription === subscription.name)?.timeline ?? [],
    behindCount: letter.blockedKey === undefined ? 0 : await countBehind(database, subscription.id, id),
    redrive: outcome(),
  }
}

async function countBehind(
  database: Pick<Database, 'query'>,
  subscriptionId: number,
  id: string,
): Promise<number> {
  const { rows } = await database.query<{ count: number }>(
    `select count(*)::int as count from (
       select from bus.failing f join bus.ordered_keys k on k.id = f.key_id
       join bus.ordered_events e on e.key_id = k.id and e.seq > k.done_seq and e.event_id <> f.event_id
       where f.subscription_id = $1 and f.event_id = $2 limit ${maxBehindCount}) e`,
    [subscriptionId, id],
  )
  return rows[0]?.count ?? 0
}
