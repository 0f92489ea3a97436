import type pg from 'pg'
import { locks } from '../../database/locks.ts'
import { lowestId } from '../../events/event-id.ts'
import type { ClaimedEvent } from '../../outbox/relay/claim.ts'
import { publishedSql } from '../../outbox/relay/notifier.ts'

/** Where a new subscription starts in the log: at its beginning, or with what was published at a time or later. */
type StartFrom = 'beginning' | Date

/** A subscription that was registered just now and is to catch up with the log. */
interface NewCatchUp {
  readonly subscriptionId: number
  readonly name: string
  readonly startFrom: StartFrom
  /** The last event of the log that it may have missed. */
  readonly until: string
}

/** Called in the transaction that registers it. */
export type OnCatchUp = (client: pg.PoolClient, catchUp: NewCatchUp) => Promise<void>

/**
 * Draws the line between what the log holds for a new subscription and what is dispatched to it, at the end of the transaction that registers
 * it. Every claim holds the lock in share mode. So none is under way now: what a claim has taken out of the outbox was dispatched without the
 * subscription, and is in the log that this statement sees; everything else is taken by a claim that sees the subscription.
 *
 * Returns the last event of the log, by the order of the ids: those that it missed are not behind it. Events may be up to seven days ahead of
 * the time, and none that is older is behind an event of the last day.
 */
export async function beginCatchUp(client: pg.ClientBase, subscriptionId: number): Promise<string> {
  await client.query('select pg_advisory_xact_lock($1, $2)', [locks.namespace, locks.catchUp])
  const now = Date.now()
  const dayMs = 86_400_000
  const { rows } = await client.query<{ until: string }>(
    `update bus.subscriptions
     set catch_up_until = greatest(bus.uuid_v7_floor(clock_timestamp()), (
         select e.id from bus.events e where e.id > $2::uuid order by e.id desc limit 1)),
       revision = nextval('bus.subscription_revision')
     where id = $1 returning catch_up_until as until`,
    [subscriptionId, lowestId(now - dayMs)],
  )
  return rows[0]?.until ?? ''
}

/**
 * Ends it, in the transaction that has inserted the last of its jobs. Under the lock, so that no claim notes events or holds them back any
 * more; what was held back is dispatched from now on.
 */
export async function endCatchUp(client: pg.ClientBase, subscriptionId: number): Promise<void> {
  await client.query('select pg_advisory_xact_lock($1, $2)', [locks.namespace, locks.catchUp])
  await client.query(
    `update bus.subscriptions
     set catch_up_until = null, revision = nextval('bus.subscription_revision'),
       catch_up_ended_at = case when options->'ordered' is not null then clock_timestamp() end
     where id = $1`,
    [subscriptionId],
  )
  await client.query('delete from bus.catch_up_dispatched where subscription_id = $1', [subscriptionId])
  await client.query(publishedSql)
}

/**
 * Notes that a claim takes care of events for a subscription that catches up, in its transaction: what it has dispatched is not to come from
 * the log too. Only events up to the last one of the catch-up need that: those that were published before it and committed or dispatched later.
 */
export async function noteDispatched(
  client: pg.ClientBase,
  { id, catchUpUntil }: { readonly id: number; readonly catchUpUntil?: string | undefined },
  events: readonly ClaimedEvent[],
): Promise<void> {
  if (catchUpUntil === undefined) return
  const ids = events.map((event) => event.id).filter((eventId) => eventId <= catchUpUntil)
  if (ids.length === 0) return
  await client.query(
    'insert into bus.catch_up_dispatched (subscription_id, event_id) select $1, unnest($2::uuid[]) on conflict do nothing',
    [id, ids],
  )
}
