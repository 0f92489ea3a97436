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
import type { DefaultedBy, EventDefaults } from '../outbox/publish/publisher.ts'
import { createEventReader } from '../delivery/attempts/event-reader.ts'
import type { DrizzleOption, HandlerTransaction } from '../database/drizzle-handle.ts'
import { toCondition, type EventMatcher, type EventReference } from './event-matcher.ts'
import { describeState, pendingStates, readStates, type EventState } from './event-state.ts'
import { deleteAll, deleteWaiting } from './forget.ts'
import { findServer } from './find-server.ts'
import { migrate } from './databases.ts'
import { createTestDatabase, isPostgresUrl, openTestDatabase, type TestDatabase } from './test-database.ts'
import {
  hasCome,
  isUnreachable,
  tell,
  isDrained,
  skipDelays,
  type EventOutcome,
  outcomes,
} from './event-outcomes.ts'
import type { TestBusOptions } from './test-bus-options.ts'

export interface WaitOptions {
  /** For this subscription. Default: all subscriptions of the event for `'delivered'`, any of them otherwise. */
  readonly subscription?: string | undefined
  /** @defaultValue `4000`, so that its error comes before the test runner's */
  readonly timeoutMs?: number | undefined
}

/** A bus on its own database, and methods for tests. */
export interface TestBus<
  C extends EventCatalogue = EventCatalogue,
  Tx = HandlerTransaction,
  Defaulted extends 'tenantId' = never,
> extends Bus<C, Tx, Defaulted> {
  /** The database, for tables of your own. */
  readonly url: string
  /** Runs a statement on the database and returns its rows, to check what handlers did. */
  readonly query: TestDatabase['query']
  /**
   * Resolves when every published event has been handled: delivered, dead or expired, including all retries and all
   * events that handlers published in the meantime. It does not wait for events that are scheduled for later, or
   * blocked behind a key.
   * @throws after `timeoutMs` (4,000), an error that states which events are still waiting, and for what
   */
  drain: (options?: { readonly timeoutMs?: number | undefined }) => Promise<void>
  /**
   * Resolves to the event when it has reached this outcome, or had reached it before. `'delivered'` means that every
   * subscription of the event has delivered it. Rejects as soon as the event can no longer reach the outcome.
   * @throws an error that states what happened to the event instead
   */
  waitFor: <const T extends EventType<C> = EventType<C>>(
    event: EventReference<C, T>,
    outcome: EventOutcome,
    options?: WaitOptions,
  ) => Promise<EventOf<C, T>>
  /** The events of the log that match, ordered by id; all events without a matcher. */
  published: <const T extends EventType<C> = EventType<C>>(
    matcher?: EventMatcher<C, T>,
  ) => Promise<EventOf<C, T>[]>
  /**
   * Deletes every published event and its deliveries, for the next test on the same bus, and resumes subscriptions that
   * were paused or whose circuit breaker was open. Waits for running handlers, 4 seconds by default; no further
   * attempts are made. Your own tables are not touched.
   * @throws after `timeoutMs`, an error that names the handlers that are still running
   */
  reset: (options?: { readonly timeoutMs?: number | undefined }) => Promise<void>
  /** Stops the bus and drops its database. Another call waits for the same. */
  dispose: () => Promise<void>
  /** Calls `dispose`, for `await using`. */
  [Symbol.asyncDispose]: () => Promise<void>
}

/** The interval between checks. */
const pollIntervalMs = 10

const defaultTimeoutMs = 4000

const quiet: BusLogger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/**
 * Creates a bus for a test, on its own migrated database. Subscribe and start it like any other bus.
 *
 * @example
 * ```ts
 * await using bus = await createTestBus({ events, retryDelays: 'skipped' })
 * bus.subscribe(openCase)
 * await bus.start()
 * const published = await bus.tryPublish({ type: 'payment.paid', tenantId: 'acme', payload: { paymentId: '42', amountCents: 4200 } })
 * await bus.waitFor(published, 'delivered')
 * ```
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; PostgreSQL's error if it cannot be reached
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
    throw invalidOption('Expected `database` if `isolated` is false', 'database')
  const url = given ?? (await findServer())
  const database = isOwn ? await createTestDatabase(url) : openTestDatabase(url)
  try {
    if (!isOwn) await migrate(database.url)
    const bus = createBus<C, D, E>({ ...rest, database: database.url, source, logger })
    return withTestMethods(bus, database, retryDelays === 'skipped')
  } catch (error) {
    await database.drop()
    throw error
  }
}

/** Adds the methods for tests to a bus. */
export function withTestMethods<C extends EventCatalogue, Tx, Defaulted extends 'tenantId'>(
  bus: Bus<C, Tx, Defaulted>,
  database: TestDatabase,
  skipsDelays: boolean,
): TestBus<C, Tx, Defaulted> {
  const { query } = database
  const reader = createEventReader(
    { query: async (text, values) => ({ rows: (await query(text, values)) as never[] }) },
    () => 1,
  )
  let disposing: Promise<void> | undefined

  async function published(matcher: EventMatcher = {}): Promise<StoredEvent[]> {
    const { sql, values } = toCondition(matcher)
    const rows = await query(`select id from bus.events where ${sql} order by id`, values)
    const ids = rows.map(({ id }) => String(id))
    const events = await reader.load(ids)
    return ids.flatMap((id) => events.get(id) ?? [])
  }

  /** Calls a function until it returns something other than undefined. */
  async function poll<T>(timeoutMs: number, read: () => Promise<T | undefined>): Promise<T | undefined> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      if (skipsDelays) await skipDelays(database)
      const seen = await read()
      if (seen !== undefined || performance.now() > deadline) return seen
      await new Promise((resolve) => setTimeout(resolve, pollIntervalMs))
    }
  }

  async function drain({ timeoutMs }: { readonly timeoutMs?: number | undefined } = {}): Promise<void> {
    const limitMs = timeoutOf(timeoutMs)
    if ((await poll(limitMs, async () => (await isDrained(database)) || undefined)) === true) return
    const pending = (await readStates(database, 'true', [])).filter(({ state }) => pendingStates.has(state))
    const lines = pending
      .slice(0, 10)
      .map((state) => `${state.type} ${state.eventId}: ${describeState(state)}`)
    throw new Error(
      [
        `Not everything was handled within ${limitMs} ms. ${pending.length} still waiting:`,
        ...lines,
        ...(bus.state === 'started' ? [] : [`The bus is ${bus.state}: only a started bus delivers events.`]),
        ...(!skipsDelays && pending.some(({ dueSeconds }) => dueSeconds > 0)
          ? [`With retryDelays: 'skipped' no event waits for its next attempt.`]
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
    const found = await poll(limitMs, async () => {
      states = await readStates(database, sql, values)
      const byEvent = Map.groupBy(states, ({ eventId }) => eventId)
      for (const [eventId, all] of byEvent) if (hasCome(all, outcome, subscription)) return eventId
      return isOne && states.length > 0 && isUnreachable(states, outcome, subscription) ? 'never' : undefined
    })
    if (found === undefined || found === 'never') {
      throw new Error(
        [
          `Expected ${text} to be ${outcome}${of}${found === 'never' ? ', which is no longer possible' : ` within ${limitMs} ms`}.`,
          ...(await tell(database, sql, values, states)),
          ...(bus.state === 'started'
            ? []
            : [`The bus is ${bus.state}: only a started bus delivers events.`]),
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
    const running = await poll(limitMs, async () => ((await deleteWaiting(database)) === 0 ? 0 : undefined))
    if (running === undefined)
      throw new Error(
        `Handlers are still running after ${limitMs} ms: reset() waits for them, and nothing has been deleted yet`,
      )
    await deleteAll(database)
    if (bus.state !== 'started') return
    for (const { name, state } of await bus.subscriptions.list())
      if (state === 'paused' || state === 'circuit open') await bus.subscriptions.resume(name)
  }

  return {
    ...bus,
    get state() {
      return bus.state
    },
    get live() {
      return bus.live
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

function timeoutOf(timeoutMs: number | undefined): number {
  return integerOption('timeoutMs', timeoutMs, { min: 0, max: 3_600_000, default: defaultTimeoutMs })
}
