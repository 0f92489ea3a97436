import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import { findWaitingEvents } from '../../delivery/jobs/queue-state/background-jobs.ts'
import { queueName } from '../../delivery/jobs/queues.ts'
import { readReceipts } from '../../delivery/ledger/receipts.ts'
import { findRoutedEvents, type Route } from '../../delivery/routing/match-events.ts'
import type { RoutedEvents } from '../../delivery/routing/plan-jobs.ts'
import type { LogEvent } from './selection.ts'

/** How many events of a replay are in which standing with a subscription. */
export interface StandingCounts {
  /** It has had them: they are replayed. */
  readonly hadCount: number
  /** It has never had them, for example because it did not exist yet: they are replayed too. */
  readonly neverHadCount: number
  /** It still waits for them, or is retrying them: they are not replayed. */
  readonly waitingCount: number
  /** They are its dead letters, which can be redriven: they are not replayed. */
  readonly deadCount: number
  /** Its patterns or its predicate leave them out, a person discarded them for it, or they are edited copies for another one. */
  readonly filteredCount: number
}

export const noCounts: StandingCounts = {
  hadCount: 0,
  neverHadCount: 0,
  waitingCount: 0,
  deadCount: 0,
  filteredCount: 0,
}

interface Standing {
  /** Those that are replayed. */
  readonly replayed: readonly RoutedEvents[]
  readonly counts: StandingCounts
}

/** The events of a page that are in the outbox, for all subscriptions or for those that are named by their ids. */
export type OutboxEvents = ReadonlyMap<string, ReadonlySet<number | 'all'>>

/**
 * Looks a page up in the outbox, which no index answers: once for all subscriptions, and before anything else of these is looked up, because
 * an event leaves the outbox before it is anywhere else.
 */
export async function findInOutbox(client: pg.ClientBase, page: readonly LogEvent[]): Promise<OutboxEvents> {
  const { rows } = await client.query<{ event_id: string; subscription_id: number | null }>(
    'select event_id, subscription_id from bus.outbox where event_id = any ($1::uuid[])',
    [page.map(({ id }) => id)],
  )
  const found = new Map<string, Set<number | 'all'>>()
  for (const { event_id, subscription_id } of rows)
    found.set(event_id, (found.get(event_id) ?? new Set()).add(subscription_id ?? 'all'))
  return found
}

/**
 * Decides which events of a page are replayed to a subscription. Only reads.
 *
 * @param inOutbox - as {@link findInOutbox} found it before
 */
export async function findStanding(
  client: pg.ClientBase,
  database: Pick<Database, 'bossSchema'>,
  route: Route,
  page: readonly LogEvent[],
  inOutbox: OutboxEvents,
): Promise<Standing> {
  const { subscription } = route
  const refused = await findRefused(client, subscription.id, page)
  const routed = await findRoutedEvents(
    client,
    route,
    page.filter(({ id, type }) => route.matches(type) && !refused.has(id)),
  )
  const events = routed.flatMap((each) => each.events)
  const ids = events.map(({ id }) => id)
  const had = await readReceipts(client, subscription.id, ids)
  const others = events.filter(({ id }) => !had.has(id))
  const open = await findOpen(client, database, subscription, others, inOutbox)
  const left = routed
    .map((each) => ({
      ...each,
      events: each.events.filter(({ id }) => !open.waiting.has(id) && !open.dead.has(id)),
    }))
    .filter((each) => each.events.length > 0)
  const openCount = open.waiting.size + open.dead.size
  return {
    replayed: left,
    counts: {
      hadCount: had.size,
      neverHadCount: events.length - had.size - openCount,
      waitingCount: open.waiting.size,
      deadCount: open.dead.size,
      filteredCount: page.length - events.length,
    },
  }
}

/** Events that a person has discarded for the subscription, and edited copies of dead letters that are for another one. */
async function findRefused(
  client: pg.ClientBase,
  subscriptionId: number,
  events: readonly LogEvent[],
): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ event_id: string }>(
    `select event_id from bus.event_copies where event_id = any ($2::uuid[]) and subscription_id <> $1
     union all
     select event_id from bus.receipts where subscription_id = $1 and event_id = any ($2::uuid[]) and discard_id is not null`,
    [subscriptionId, events.map(({ id }) => id)],
  )
  return new Set(rows.map((row) => row.event_id))
}

interface OpenEvents {
  readonly waiting: ReadonlySet<string>
  readonly dead: ReadonlySet<string>
}

/**
 * Which of some events a subscription has still to deliver: looked for in the order in which they get from one place to the next, so that none is
 * missed on its way. One that is delivered meanwhile counts as waiting.
 */
async function findOpen(
  client: pg.ClientBase,
  database: Pick<Database, 'bossSchema'>,
  { id, name, ordered }: Route['subscription'],
  events: readonly LogEvent[],
  inOutbox: OutboxEvents,
): Promise<OpenEvents> {
  const waiting = new Set<string>()
  const dead = new Set<string>()
  if (events.length === 0) return { waiting, dead }
  const ids = events.map((event) => event.id)
  const add = (rows: readonly { readonly event_id: string }[]): void => {
    for (const { event_id } of rows) waiting.add(event_id)
  }
  for (const eventId of ids) {
    const of = inOutbox.get(eventId)
    if (of?.has('all') === true || of?.has(id) === true) waiting.add(eventId)
  }
  if (ordered === true) add(await findInKeys(client, id, events))
  for (const each of await findWaitingEvents(
    client,
    database,
    queueName(name),
    events.map((event) => ({ id: event.id, dueMs: event.dueMs })),
  ))
    waiting.add(each)
  const failing = await client.query<{ event_id: string; state: string }>(
    'select event_id, state from bus.failing where subscription_id = $1 and event_id = any ($2::uuid[])',
    [id, ids],
  )
  for (const { event_id, state } of failing.rows) {
    if (state === 'retrying') waiting.add(event_id)
    else {
      dead.add(event_id)
      waiting.delete(event_id)
    }
  }
  return { waiting, dead }
}

async function findInKeys(
  client: pg.ClientBase,
  subscriptionId: number,
  events: readonly LogEvent[],
): Promise<readonly { readonly event_id: string }[]> {
  const keyed = events.filter(({ orderingKey }) => orderingKey !== undefined)
  const { rows } = await client.query<{ event_id: string }>(
    `select distinct o.event_id
     from unnest($2::text[], $3::text[], $4::uuid[]) as e (tenant_id, ordering_key, event_id)
     join bus.ordered_keys k on k.subscription_id = $1 and k.key_hash = bus.ordering_key_hash(e.tenant_id, e.ordering_key)
     join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq and o.event_id = e.event_id
     where o.replay_id is null`,
    [
      subscriptionId,
      keyed.map(({ tenantId }) => tenantId),
      keyed.map(({ orderingKey }) => orderingKey),
      keyed.map(({ id }) => id),
    ],
  )
  return rows
}

export function addStanding(a: StandingCounts, b: StandingCounts): StandingCounts {
  return {
    hadCount: a.hadCount + b.hadCount,
    neverHadCount: a.neverHadCount + b.neverHadCount,
    waitingCount: a.waitingCount + b.waitingCount,
    deadCount: a.deadCount + b.deadCount,
    filteredCount: a.filteredCount + b.filteredCount,
  }
}
