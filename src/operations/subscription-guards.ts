import type pg from 'pg'
import type { Database } from '../database/database.ts'
import { countJobs } from '../delivery/jobs/leftover-jobs.ts'
import { deadLetterQueueName, queueName } from '../delivery/jobs/queues.ts'
import { missingSubscription } from '../delivery/registry/find-subscription.ts'
import { liveSeconds } from '../delivery/registry/declarations.ts'
import type { DurableOptions } from '../delivery/subscriptions/subscription.ts'
import { ConfigurationError } from '../foundation/errors.ts'

/** A row of `bus.subscriptions`. */
export interface FoundSubscription {
  readonly id: number
  readonly name: string
  readonly service: string
  readonly options: DurableOptions
}

/** Maximum number of waiting events and dead letters that are counted. */
const maxCounted = 10_000

/** @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND` */
export async function findSubscription(database: Database, name: string): Promise<FoundSubscription> {
  const { rows } = await database.query<FoundSubscription & pg.QueryResultRow>(
    'select id, name, service, options from bus.subscriptions where name = $1',
    [name],
  )
  const [found] = rows
  if (found === undefined) throw await missingSubscription(database, name)
  return found
}

/** @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_SERVED` if a live process has it */
export async function refuseServed(database: Database, { id, name }: FoundSubscription): Promise<void> {
  const { rows } = await database.query<{ service: string; host: string; pid: number }>(
    `select i.service, i.host, i.pid from bus.instances i
     where i.seen_at > clock_timestamp() - ${liveSeconds} * interval '1 second' and exists (
       select from bus.declarations d where d.subscription_id = $1 and d.id = any (i.declarations))
     order by i.started_at limit 101`,
    [id],
  )
  const [first] = rows
  if (first === undefined) return
  const count =
    rows.length > 100
      ? 'more than 100 processes'
      : rows.length === 1
        ? 'a process'
        : `${rows.length} processes`
  throw new ConfigurationError(
    'BUS_SUBSCRIPTION_SERVED',
    `The subscription \`${name}\` is served by ${count}, such as ${first.service} with pid ${first.pid} on ${first.host}: stop them, or deploy code without it, first. A process that has died counts for ${liveSeconds} seconds`,
  )
}

/** What waits for a subscription. */
export interface WaitingCounts {
  readonly waiting: number
  readonly dead: number
}

/** What waits, the events of keys included: up to 10,000 of each. */
export async function countWaiting(
  database: Database,
  { id, name }: FoundSubscription,
): Promise<WaitingCounts> {
  const { eventCount } = await countJobs(database, queueName(name), maxCounted)
  const { jobCount: dead } = await countJobs(database, deadLetterQueueName(name), maxCounted)
  const { rows } = await database.query<{ keyed: number; held: number }>(
    `select
       (select count(*)::int from (select from bus.ordered_keys k join bus.ordered_events e on e.key_id = k.id and e.seq > k.done_seq
         where k.subscription_id = $1 limit ${maxCounted}) x) as keyed,
       (select count(*)::int from (select from bus.outbox where subscription_id = $1 limit ${maxCounted}) x) as held`,
    [id],
  )
  const { keyed = 0, held = 0 } = rows[0] ?? {}
  return { waiting: Math.max(eventCount, keyed) + held, dead }
}

/** @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_EMPTY` */
export function refuseWaiting(name: string, { waiting, dead }: WaitingCounts): void {
  if (waiting + dead === 0) return
  const say = (count: number): string => (count >= maxCounted ? `over ${maxCounted}` : String(count))
  throw new ConfigurationError(
    'BUS_SUBSCRIPTION_NOT_EMPTY',
    `The subscription \`${name}\` has ${say(waiting)} waiting events and ${say(dead)} dead letters: say what becomes of them, with waiting: 'discard' or { moveTo: 'another subscription' }`,
  )
}

/** @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_TAKEN` */
export async function refuseTakenName(database: Database, name: string): Promise<void> {
  const { rows } = await database.query<{ is_there: boolean }>(
    `select exists (select from bus.subscriptions where name = $1)
       or exists (select from bus.operations where kind = 'remove' and state not in ('done', 'cancelled') and options->>'name' = $1) as is_there`,
    [name],
  )
  if (rows[0]?.is_there !== true) return
  throw new ConfigurationError(
    'BUS_SUBSCRIPTION_TAKEN',
    `There is a subscription \`${name}\` already, or one is being removed: choose another name, or move what waits with remove(…, { waiting: { moveTo: '${name}' } })`,
  )
}
