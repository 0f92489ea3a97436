import type pg from 'pg'
import { isLockTimeout } from '../database/database-errors.ts'
import type { Database } from '../database/database.ts'
import { locks } from '../database/locks.ts'
import { dropQueues, hasUnfinishedJobs, lockQueue, takeJobs } from '../delivery/jobs/leftover-jobs.ts'
import { deadLetterQueueName, queueName } from '../delivery/jobs/queues.ts'
import { readReceipts } from '../delivery/ledger/receipts.ts'
import { findSubscription } from '../delivery/registry/find-subscription.ts'
import type { RegisteredSubscription } from '../delivery/registry/registry.ts'
import { heldPositionSql } from '../delivery/routing/hold-events.ts'
import { publishedSql } from '../outbox/relay/notifier.ts'
import { findUncoveredTypes, notCovering } from './moved-events.ts'
import type { OperationPart } from './operation-runner.ts'
import type { RunningOperation } from './operation.ts'

/** How long a part waits for the locks that deleting queues takes, and when it tries again. */
const lockTimeoutMs = 50
const lockedPauseMs = 500

/** What is left of a subscription that was removed. */
interface Leftovers {
  readonly name: string
  readonly id: number
  /** The subscription that gets the events. Undefined: they are discarded. */
  readonly target: RegisteredSubscription | undefined
}

/** Events that the other subscription does not cover. */
class Uncovered extends Error {}

type Part = Awaited<ReturnType<OperationPart>>

/**
 * Empties what a removed subscription has left, then deletes its queues: one source of events in a part, the next one when it is empty. Parts
 * take the lock of the registry, so that no process registers the subscription again in between.
 */
export function removalPart(database: Database): OperationPart {
  return async (client, operation, maxCount) => {
    const { rows } = await client.query<{ held: boolean }>(
      `select pg_try_advisory_xact_lock(${locks.namespace}, ${locks.registry}) as held`,
    )
    if (rows[0]?.held !== true) return running({}, 0, lockedPauseMs)
    const left = await findLeftovers(client, operation)
    if (typeof left === 'string') return { ...running({}, 0), next: { state: 'stopped', reason: left } }
    await client.query('savepoint part')
    try {
      for (const take of sources(database, client, left, maxCount)) {
        const eventIds = await take()
        if (eventIds === undefined) continue
        return running(await handle(client, left, eventIds), eventIds.length)
      }
      return await finish(database, client, left)
    } catch (error) {
      if (!(error instanceof Uncovered)) throw error
      await client.query('rollback to savepoint part')
      return { ...running({}, 0), next: { state: 'stopped', reason: error.message } }
    }
  }
}

function running(counts: Part['counts'], handledCount: number, waitMs = 0): Part {
  return { progress: {}, counts, handledCount, next: { state: 'running', waitMs } }
}

/** The reason why nothing may be done, if there is one. */
async function findLeftovers(
  client: pg.ClientBase,
  { options, subscription_ids: [id = 0] }: RunningOperation,
): Promise<Leftovers | string> {
  const name = String(options['name'])
  const moveTo = options['moveTo'] as string | undefined
  const { rows } = await client.query<{ id: number; name: string }>(
    'select id, name from bus.subscriptions where id = $1 or name = $2 or name = $3 for share',
    [id, name, moveTo ?? null],
  )
  if (rows.some((row) => row.id === id || row.name === name))
    return `A process has registered the subscription \`${name}\` again: what is left waits for it`
  if (moveTo === undefined) return { name, id, target: undefined }
  if (!rows.some((row) => row.name === moveTo))
    return `The subscription \`${moveTo}\` that gets the events was removed, or has another name now`
  return { name, id, target: await findSubscription(client, moveTo) }
}

/** What takes the events of each source. Each resolves to undefined if the source is empty. */
function sources(
  database: Database,
  client: pg.ClientBase,
  { id, name }: Leftovers,
  maxCount: number,
): readonly (() => Promise<readonly string[] | undefined>)[] {
  return [
    // Dead letters first: they are of older events.
    async () => takeEvents(client, database, deadLetterQueueName(name), maxCount),
    async () => takeEvents(client, database, queueName(name), maxCount),
    // The events of keys, in their order; the rows of keys go with the last one.
    async () =>
      takeIds(
        client,
        `delete from bus.ordered_events e using bus.ordered_keys k
         where k.id = e.key_id and k.subscription_id = $1 and (e.key_id, e.seq) in (
           select o.key_id, o.seq from bus.ordered_keys x join bus.ordered_events o on o.key_id = x.id
           where x.subscription_id = $1 order by o.key_id, o.seq limit $2)
         returning case when e.seq > k.done_seq then e.event_id end as id`,
        [id, maxCount],
      ),
    async () =>
      takeIds(
        client,
        `delete from bus.ordered_keys where id = any(array(
           select id from bus.ordered_keys where subscription_id = $1 limit $2)) returning null::uuid as id`,
        [id, maxCount],
      ),
    // What a relay has held back.
    async () =>
      takeIds(
        client,
        `delete from bus.outbox where position = any(array(
           select position from bus.outbox where subscription_id = $1 order by position limit $2)) returning event_id as id`,
        [id, maxCount],
      ),
    async () =>
      takeIds(
        client,
        `delete from bus.failing where subscription_id = $1 and event_id = any(array(
           select event_id from bus.failing where subscription_id = $1 limit $2)) returning null::uuid as id`,
        [id, maxCount],
      ),
    // What replays have left, and what claims have noted for a catch-up.
    async () =>
      takeIds(
        client,
        `delete from bus.failing where (subscription_id, event_id) in (
           select f.subscription_id, f.event_id from bus.replays r join bus.failing f on f.subscription_id = r.id
           where r.subscription_id = $1 limit $2) returning null::uuid as id`,
        [id, maxCount],
      ),
    async () =>
      takeIds(
        client,
        `delete from bus.catch_up_dispatched where subscription_id = $1 and event_id = any(array(
           select event_id from bus.catch_up_dispatched where subscription_id = $1 limit $2)) returning null::uuid as id`,
        [id, maxCount],
      ),
  ]
}

/** Takes jobs. Those events of keys that still wait there are left out: they come with their keys. */
async function takeEvents(
  client: pg.ClientBase,
  database: Database,
  queue: string,
  maxCount: number,
): Promise<readonly string[] | undefined> {
  const taken = await takeJobs(client, database, queue, maxCount)
  if (taken === undefined) return undefined
  const { rows } = await client.query<{ id: string }>(
    `select t.id from unnest($1::uuid[], $2::bigint[]) as t (id, key_id)
     where not exists (select from bus.ordered_events e where e.key_id = t.key_id and e.event_id = t.id)`,
    [taken.map(({ id }) => id), taken.map(({ keyId }) => keyId ?? null)],
  )
  return rows.map(({ id }) => id)
}

async function takeIds(
  client: pg.ClientBase,
  text: string,
  values: readonly unknown[],
): Promise<readonly string[] | undefined> {
  const { rows } = await client.query<{ id: string | null }>(text, [...values])
  if (rows.length === 0) return undefined
  return rows.flatMap(({ id }) => (id === null ? [] : [id]))
}

/** Discards events, or puts them into the outbox for the other subscription: a relay then hands them over as those that a lock held back. */
async function handle(
  client: pg.ClientBase,
  { name, target }: Leftovers,
  eventIds: readonly string[],
): Promise<Record<string, number>> {
  if (target === undefined) return { discarded: eventIds.length }
  const received = await readReceipts(client, target.id, eventIds)
  const ids = [...new Set(eventIds)].filter((id) => !received.has(id))
  const types = await findUncoveredTypes(client, target, ids)
  if (types.length > 0)
    throw new Uncovered(
      `${notCovering(target.name, types)}. They stay where they are: deploy code that covers them and resume, or register \`${name}\` again`,
    )
  const { rowCount } = await client.query(
    `insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key, subscription_id)
     overriding system value
     select ${heldPositionSql}, e.id, e.tenant_id, e.type, octet_length(e.payload::text), case when $2 then e.ordering_key end, $1
     from (select * from bus.events where id = any($3::uuid[]) order by id) e`,
    [target.id, target.ordered === true, ids],
  )
  const moved = rowCount ?? 0
  if (moved > 0) await client.query(publishedSql)
  return { moved, skipped: eventIds.length - moved }
}

/**
 * Deletes the queues, unless a relay that had loaded the registry before has put jobs there meanwhile, or another session has locked a dead
 * letter, as a redrive does: should that be rolled back, the dead letter is there again.
 */
async function finish(database: Database, client: pg.ClientBase, left: Leftovers): Promise<Part> {
  await client.query(`savepoint queues; set local lock_timeout = '${lockTimeoutMs}ms'`)
  try {
    await lockQueue(client, database, left.name)
    for (const queue of [queueName(left.name), deadLetterQueueName(left.name)]) {
      const eventIds = await takeEvents(client, database, queue, 1)
      if (eventIds !== undefined) return running(await handle(client, left, eventIds), eventIds.length)
      if (await hasUnfinishedJobs(client, database, queue)) return running({}, 0, lockedPauseMs)
    }
    await dropQueues(client, database, left.name)
  } catch (error) {
    const { code } = error as { readonly code?: unknown }
    if (!isLockTimeout(error) && code !== '42501') throw error
    await client.query('rollback to savepoint queues')
    if (isLockTimeout(error)) return running({}, 0, lockedPauseMs)
    // A role that does not own pg-boss's tables leaves the empty queues.
    return { ...running({ queuesLeft: 2 }, 0), next: { state: 'done' } }
  }
  return { ...running({}, 0), next: { state: 'done' } }
}
