import type pg from 'pg'
import { unlessLocked } from '../outbox/claim.ts'
import type { ClaimedEvent } from '../outbox/relay.ts'
import type { RegisteredSubscription } from './registry.ts'

/** Leaves the events whose payload fulfils the subscription's predicate. PostgreSQL decides; errors in it are false. */
export async function narrow(
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

/**
 * The same where a lock is in the way: payloads of months that somebody has locked cannot be read now. Where order is kept, events
 * that were held cannot be held again, behind later ones of their key: then none is read.
 */
export async function narrowByMonth(
  client: pg.ClientBase,
  subscription: RegisteredSubscription,
  matched: readonly ClaimedEvent[],
  retaken: boolean,
): Promise<{ readonly events: readonly ClaimedEvent[]; readonly unreadable: readonly ClaimedEvent[] }> {
  if (subscription.where === undefined || (retaken && subscription.ordered === true))
    return { events: await narrow(client, subscription, matched), unreadable: [] }
  const months = [...new Set(matched.map(({ id }) => monthOf(id)))]
  const events = new Set<ClaimedEvent>()
  const unreadable = new Set<ClaimedEvent>()
  for (const month of months) {
    const ofMonth = matched.filter(({ id }) => monthOf(id) === month)
    const readable = await unlessLocked(client, async () => narrow(client, subscription, ofMonth))
    for (const event of readable ?? ofMonth) (readable === undefined ? unreadable : events).add(event)
  }
  return {
    events: matched.filter((event) => events.has(event)),
    unreadable: matched.filter((event) => unreadable.has(event)),
  }
}

/** The month of a uuid v7, in UTC: its partition of the log. */
function monthOf(id: string): string {
  const time = new Date(Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16))
  return `${time.getUTCFullYear()}-${time.getUTCMonth()}`
}
