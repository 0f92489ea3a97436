import type pg from 'pg'
import { checkActor } from '../../audit/audit.ts'
import type { Database } from '../../database/database.ts'
import { locks } from '../../database/locks.ts'
import { beginReading } from '../../database/session-settings.ts'
import { pickSubscription } from '../../delivery/registry/find-subscription.ts'
import { loadSubscriptions, type RegisteredSubscription } from '../../delivery/registry/registry.ts'
import { toRoute } from '../../delivery/routing/match-events.ts'
import { limits } from '../../foundation/limits.ts'
import {
  assertObject,
  assertTextOption,
  booleanOption,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { insertOperation, type Operation } from '../operation.ts'
import type { Operations } from '../operations.ts'
import {
  checkSelection,
  firstCursor,
  readPage,
  selectionKeys,
  type ReplaySelection,
  type StoredSelection,
} from './selection.ts'
import { addStanding, findInOutbox, findStanding, noCounts, type StandingCounts } from './standing.ts'

export type { ReplaySelection } from './selection.ts'
export type { StandingCounts } from './standing.ts'

/** What to replay, and to whom. */
export interface ReplayOptions extends ReplaySelection {
  /** The names of the subscriptions that get the events, 1 to 100. No other subscription sees anything. */
  readonly subscriptions: readonly string[]
  /** Events a second at most, 1 to 100,000, of all subscriptions together. @defaultValue as fast as they are handled */
  readonly rate?: number | undefined
  /** The person or program that replays, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
  readonly dryRun?: false | undefined
}

/** What a replay would do, without doing it. */
export interface ReplayDryRun extends Omit<ReplayOptions, 'by' | 'dryRun'> {
  readonly by?: string | undefined
  readonly dryRun: true
}

/** What a replay would do. */
export interface ReplayPreview {
  /** Events of the selection. */
  readonly eventCount: number
  /** Whether there are more than were looked at: then all counts are at least so high. */
  readonly isPartial: boolean
  readonly subscriptions: readonly ({ readonly subscription: string } & StandingCounts)[]
}

/** Replays events. */
export interface ReplayCall {
  /** Counts what a replay would do, for up to 20,000 events. Writes nothing. */
  (options: ReplayDryRun): Promise<ReplayPreview>
  /**
   * Delivers events of the log to some subscriptions once more, by an operation that goes on by itself in any process that has started:
   * `bus.operations` shows, holds and cancels it. Each event is delivered once for each replay and subscription, in every mode as a live event
   * is; the handler sees `ctx.isReplay`. Live events come first. Events that a subscription still waits for, or has as dead letters, are
   * skipped, and so are events that were erased or cancelled.
   */
  (options: ReplayOptions): Promise<Operation>
}

/** Events that a dry run looks at, about. */
const maxPreviewed = 20_000

/** Events that are looked at before a replay, for its record. */
const maxExpected = 1000

const previewPageSize = 1000

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_SUBSCRIPTION_NOT_FOUND` */
export function createReplay(database: Database, operations: Operations): ReplayCall {
  async function replay(given: ReplayOptions | ReplayDryRun): Promise<Operation | ReplayPreview> {
    assertObject('options like { tenantId, subscriptions, by }', given)
    refuseUnknownKeys(given, [...selectionKeys, 'subscriptions', 'rate', 'by', 'reason', 'dryRun'], 'replay')
    const stored = checkSelection(given)
    const names = checkNames(given.subscriptions)
    const rate = given.rate === undefined ? undefined : integerOption('rate', given.rate, rateRange)
    const isDryRun = booleanOption('dryRun', given.dryRun, false)
    // Whoever only counts need not say who it is.
    const isUnsaid = isDryRun && given.by === undefined
    const actor = checkActor({ by: isUnsaid ? 'nobody' : given.by, reason: given.reason })
    const known = await loadSubscriptions(database)
    const subscriptions = await Promise.all(
      names.map(async (name) => pickSubscription(database, known, name)),
    )
    const expected = await preview(database, stored, subscriptions, isDryRun ? maxPreviewed : maxExpected)
    if (isDryRun) return expected
    const id = await database.transaction(async (client) => {
      const subscriptionIds = subscriptions.map((subscription) => subscription.id)
      const operationId = await insertOperation(client, {
        kind: 'replay',
        action: 'replay',
        ...{ ...actor, rate, subscriptionIds, expected },
        selection: { ...selectionOf(given), stored },
        subscription: names.length === 1 ? names[0] : undefined,
      })
      await insertReplays(client, operationId, subscriptionIds)
      return operationId
    })
    return operations.get(id)
  }
  return replay as ReplayCall
}

const rateRange = { min: 1, max: limits.operationRate, default: limits.operationRate }

/** As the caller named it, without what is not given. */
function selectionOf(given: ReplaySelection): object {
  return Object.fromEntries(
    selectionKeys.flatMap((key) => (given[key] === undefined ? [] : [[key, given[key]]])),
  )
}

/** The ids descend from 0. Under a lock, because a sequence may be behind its table after a restore. */
async function insertReplays(
  client: pg.ClientBase,
  operationId: string,
  subscriptionIds: readonly number[],
): Promise<void> {
  await client.query('select pg_advisory_xact_lock($1, $2)', [locks.namespace, locks.replays])
  await client.query(
    `insert into bus.replays (id, operation_id, subscription_id)
     select coalesce((select min(r.id) from bus.replays r), 0) - u.ordinal, $1, u.id
     from unnest($2::int[]) with ordinality as u (id, ordinal)`,
    [operationId, subscriptionIds],
  )
}

async function preview(
  database: Database,
  stored: StoredSelection,
  subscriptions: readonly RegisteredSubscription[],
  maxCount: number,
): Promise<ReplayPreview> {
  return database.transaction(async (client) => {
    let eventCount = 0
    let cursor = await firstCursor(client, stored)
    let isLast = false
    const routes = subscriptions.map(toRoute)
    let counts: readonly StandingCounts[] = routes.map(() => noCounts)
    for (let page = 0; !isLast && eventCount < maxCount && page < maxPages; page += 1) {
      const read = await readPage(client, stored, cursor, Math.min(previewPageSize, maxCount))
      const inOutbox = await findInOutbox(client, read.events)
      const added: StandingCounts[] = []
      for (const [index, route] of routes.entries()) {
        const found = await findStanding(client, database, route, read.events, inOutbox)
        added.push(addStanding(counts[index] ?? noCounts, found.counts))
      }
      counts = added
      eventCount += read.events.length
      ;({ cursor, isLast } = read)
    }
    return {
      eventCount,
      isPartial: !isLast,
      subscriptions: subscriptions.map(({ name }, index) => ({
        subscription: name,
        ...(counts[index] ?? noCounts),
      })),
    }
  }, beginReading)
}

/** A page may be empty: see `windowSize` in selection.ts. */
const maxPages = 100

function checkNames(given: unknown): readonly string[] {
  if (!Array.isArray(given) || given.length === 0 || given.length > 100)
    throw invalidOption(
      `Expected \`subscriptions\` to be a list of 1 to 100 names, got ${describe(given)}`,
      'subscriptions',
    )
  for (const name of given as unknown[])
    assertTextOption('subscriptions', name, { max: limits.subscriptionNameLength })
  return [...new Set(given as string[])]
}
