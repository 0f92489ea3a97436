import type pg from 'pg'
import type { PgBoss } from 'pg-boss'
import { canary } from '../../events/event-type.ts'
import { ConfigurationError } from '../../foundation/errors.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { withLock } from '../../database/advisory-lock.ts'
import type { Database, Executor } from '../../database/database.ts'
import { unstartedBoss } from '../jobs/boss.ts'
import { assertUsableBoss } from '../jobs/boss-version.ts'
import { beginCatchUp, type OnCatchUp } from './catch-up.ts'
import { overridesSql } from '../flow-control/subscription-state.ts'
import { reofferDeclinedJobs } from './coverage.ts'
import {
  declarationHash,
  readDeclarations,
  writeDeclarations,
  type Declaration,
  type KnownDeclaration,
  type Registration,
} from './declarations.ts'
import { applyQueueStorage } from '../jobs/queue-storage.ts'
import { type DurableOptions, type Subscription } from '../subscriptions/subscription.ts'
import { locks } from '../../database/locks.ts'
import { readQueues, ensureQueues } from '../jobs/queues.ts'

/** A subscription as the database knows it, with the options of its newest declaration. */
export interface RegisteredSubscription extends DurableOptions {
  readonly id: number
  readonly name: string
  /** Its active declarations, oldest first: an event is routed to the subscription if one of them covers it. */
  readonly declarations: readonly Declaration[]
  /** While it catches up with the log: see catch-up.ts. */
  readonly catchUpUntil?: string | undefined
}

interface SubscriptionRow {
  readonly id: number
  readonly name: string
  readonly service: string
  readonly options: DurableOptions
}

/**
 * Registers a service's subscriptions and this process's declarations of them, after creating all their queues. Returns
 * their ids by name. From then on relays route by these declarations too, besides those of other live processes; the
 * options of a queue are those of the newest declaration (docs/adr/0020).
 *
 * One process at a time, under an advisory lock: creating a queue locks pg-boss's job table, and two creations at once
 * deadlock.
 *
 * @param knownIds - for a running process: the ids of its subscriptions before their rows were lost
 * @param onCatchUp - called for each new subscription that is to start in the past
 * @throws {@link ConfigurationError} `BUS_INVALID_WHERE`, `BUS_SUBSCRIPTION_TAKEN`, `BUS_SUBSCRIPTION_ORDER_CHANGED`,
 *   before anything is written
 */
export async function registerSubscriptions(
  database: Database,
  boss: PgBoss,
  service: string,
  subscriptions: readonly Subscription[],
  knownIds: ReadonlyMap<string, number> = new Map(),
  onCatchUp?: OnCatchUp,
): Promise<ReadonlyMap<string, Registration>> {
  for (const subscription of subscriptions) await checkWhere(database, subscription)
  return withLock(database, locks.registry, async () => {
    const known = await readSubscriptions(database)
    for (const { name, ordered = false } of subscriptions) {
      const row = known.find((registered) => registered.name === name)
      refuseTaken(name, service, row?.service)
      if (row !== undefined) refuseOrderChange(name, row.options.ordered ?? false, ordered)
    }
    const declared = await readDeclarations(
      database,
      subscriptions.map(({ name }) => name),
    )
    const queues = await readQueues(boss, subscriptions)
    for (const subscription of subscriptions) {
      await ensureQueues(boss, withNewestOptions(subscription, declared), queues)
      await database.faultPoint?.('start.queues-created')
    }
    await applyQueueStorage(boss)
    const registrations = await database.transaction(async (client) =>
      writeRegistration(client, database, service, subscriptions, { knownIds, onCatchUp }),
    )
    await database.faultPoint?.('start.registered')
    await reofferDeclinedJobs(
      database,
      subscriptions.map(({ name }) => name),
    )
    return registrations
  })
}

async function writeRegistration(
  client: pg.PoolClient,
  { faultPoint }: Pick<Database, 'faultPoint'>,
  service: string,
  subscriptions: readonly Subscription[],
  {
    knownIds,
    onCatchUp,
  }: { readonly knownIds: ReadonlyMap<string, number>; readonly onCatchUp: OnCatchUp | undefined },
): Promise<ReadonlyMap<string, Registration>> {
  const { registrations, createdNames } = await writeDeclarations(client, service, subscriptions, knownIds)
  for (const { name, startFrom } of subscriptions) {
    const subscriptionId = registrations.get(name)?.subscriptionId
    if (onCatchUp === undefined || startFrom === undefined || subscriptionId === undefined) continue
    if (!createdNames.has(name)) continue
    const until = await beginCatchUp(client, subscriptionId)
    await onCatchUp(client, { subscriptionId, name, startFrom, until })
    await faultPoint?.('start.catch-up-begun')
  }
  return registrations
}

/** The options of a subscription's queue: those of the newest declaration, which may belong to another process. */
function withNewestOptions(
  subscription: Subscription,
  declared: readonly KnownDeclaration[],
): Pick<RegisteredSubscription, 'name' | 'retry' | 'heartbeatSeconds'> {
  const hash = declarationHash(subscription)
  const ofIt = declared.filter(({ name }) => name === subscription.name)
  const isNew = !ofIt.some((other) => other.hash === hash)
  const newest = ofIt.findLast((other) => other.isActive || other.hash === hash)
  return isNew || newest === undefined ? subscription : { name: subscription.name, ...newest.options }
}

/**
 * Creates the queues of a service's subscriptions without registering them: for processes whose role may not create
 * queues. A subscription of another service is skipped; the start refuses it.
 */
export async function createQueues(
  database: Database,
  service: string,
  subscriptions: readonly Subscription[],
  logger: BusLogger,
): Promise<void> {
  await assertUsableBoss(database)
  const boss = unstartedBoss(database, logger)
  await withLock(database, locks.registry, async () => {
    const known = await readSubscriptions(database)
    const declared = await readDeclarations(
      database,
      subscriptions.map(({ name }) => name),
    )
    const queues = await readQueues(boss, subscriptions)
    for (const subscription of subscriptions) {
      const owner = known.find(({ name }) => name === subscription.name)?.service
      if (owner === undefined || owner === service || subscription.name === canary.subscription)
        await ensureQueues(boss, withNewestOptions(subscription, declared), queues)
    }
    await applyQueueStorage(boss)
  })
}

/** Every subscription of every service, with its active declarations. */
export async function loadSubscriptions(executor: Executor): Promise<readonly RegisteredSubscription[]> {
  const { rows } = await executor.query<LoadedRow>(
    `select s.id, s.name, s.options || coalesce(${overridesSql} - array['concurrency', 'paused'], '{}') as options, s.catch_up_until, d.id as declaration_id,
       case when d.id is null then s.patterns else d.patterns end as patterns,
       case when d.id is null then s."where" else d."where" end as "where"
     from bus.subscriptions s left join bus.declarations d on d.subscription_id = s.id and d.retired_at is null
     order by s.id, d.id`,
  )
  const loaded = new Map<number, RegisteredSubscription & { readonly declarations: Declaration[] }>()
  for (const { id, name, options, catch_up_until, declaration_id, patterns, where } of rows) {
    const subscription = loaded.get(id) ?? {
      ...{ ...options, id, name, declarations: [] },
      catchUpUntil: catch_up_until ?? undefined,
    }
    loaded.set(id, subscription)
    subscription.declarations.push({ id: declaration_id ?? undefined, patterns, where: where ?? undefined })
  }
  return [...loaded.values()]
}

interface LoadedRow {
  readonly id: number
  readonly name: string
  readonly options: DurableOptions
  readonly catch_up_until: string | null
  readonly declaration_id: number | null
  readonly patterns: readonly string[]
  readonly where: string | null
}

async function readSubscriptions(executor: Executor): Promise<SubscriptionRow[]> {
  const { rows } = await executor.query<SubscriptionRow>(
    'select id, name, service, options from bus.subscriptions order by id',
  )
  return rows
}

function refuseTaken(name: string, service: string, owner: string | undefined): void {
  // The canary is of all services that have it.
  if (owner === undefined || owner === service || name === canary.subscription) return
  throw new ConfigurationError(
    'BUS_SUBSCRIPTION_TAKEN',
    `The subscription \`${name}\` belongs to the service \`${owner}\`: two services with one name would each receive a part of the events. ` +
      `Choose another name, or transfer it with: update bus.subscriptions set service = '${service.replaceAll("'", "''")}' where name = '${name}'`,
  )
}

/** Events dispatched before the change could be delivered out of order with those after it. */
function refuseOrderChange(name: string, before: boolean, after: boolean): void {
  if (before === after) return
  throw new ConfigurationError(
    'BUS_SUBSCRIPTION_ORDER_CHANGED',
    `The subscription \`${name}\` was registered with \`ordered: ${before}\` and cannot change to \`ordered: ${after}\` while it has events in delivery. ` +
      'Subscribe under a new name; or stop publishing to it, wait until its queue is empty, stop every process that has it, and run: ' +
      `update bus.subscriptions set options = ${after ? `options || '{"ordered": true, "onKeyFailure": "block"}'` : "options - 'ordered' - 'onKeyFailure'"}, revision = nextval('bus.subscription_revision') where name = '${name}'`,
  )
}

async function checkWhere(executor: Executor, { name, where }: Subscription): Promise<void> {
  if (where === undefined) return
  let canonical: string | undefined
  try {
    const { rows } = await executor.query<{ path: string }>('select $1::jsonpath::text as path', [where])
    canonical = rows[0]?.path
  } catch (error) {
    // 42601, 22P02 and others: PostgreSQL could not parse it. A lost connection is not the predicate's fault.
    if ((error as { retryable?: boolean }).retryable === true) throw error
    throw new ConfigurationError(
      'BUS_INVALID_WHERE',
      `PostgreSQL cannot read \`where\` of \`${name}\` as a SQL/JSON path: ${reasonOf(error)}`,
      { cause: error },
    )
  }
  const variable = canonical === undefined ? undefined : variableIn(canonical)
  if (variable !== undefined) {
    throw new ConfigurationError(
      'BUS_INVALID_WHERE',
      `Expected \`where\` of \`${name}\` to be a predicate without variables: ${variable} has no value`,
    )
  }
  if (canonical === undefined || !/^(?:strict\s+)?\$/.test(canonical)) return
  throw new ConfigurationError(
    'BUS_INVALID_WHERE',
    `Expected \`where\` of \`${name}\` to be a predicate, such as \`$.amountCents > 1000\` or \`exists($.items[*] ? (@.qty > 5))\`, ` +
      'but it selects values: it would never be true',
  )
}

/** PostgreSQL prints a path's variables as `$"name"`, and its strings and keys in quotes. */
function variableIn(canonical: string): string | undefined {
  return canonical.match(/\$?"(?:[^"\\]|\\.)*"/g)?.find((quoted) => quoted.startsWith('$'))
}
