import type { EventCatalogue } from '../events/catalogue.ts'
import type { NewEvent } from '../events/envelope.ts'
import { faultPoints, type FaultPoint } from '../foundation/fault-points.ts'
import { describe, integerOption, refuseUnknownKeys, invalidOption } from '../foundation/options.ts'
import type { EventPattern } from '../events/pattern.ts'
import { defaultBossSchema } from '../database/boss-schema.ts'
import { lapseHeartbeatsSql, makeQueuesDueSql } from '../delivery/jobs/test-jobs.ts'
import type { DrizzleOption, HandlerTransaction, Settings } from '../database/drizzle-handle.ts'
import type { DeliveryMode, SubscriptionOptions } from '../delivery/subscriptions/subscription-options.ts'
import { startInProcess, type CrashInstance, type CrashStep } from './crash-instance.ts'
import { startProcess } from './crash-child.ts'
import { migrate } from './databases.ts'
import { createTestDatabase, isPostgresUrl, openTestDatabase, type TestDatabase } from './test-database.ts'
import { type Publisher, createPublisher } from './crash-publisher.ts'

/** The database of a run, as passed to the functions of {@link CrashOptions}. */
export type CrashDatabase = Pick<TestDatabase, 'url' | 'query'>

/** Options of {@link crashAtEveryStep} besides the subscription and the event. */
export interface CrashOptions<C extends EventCatalogue, D extends DrizzleOption = DrizzleOption> {
  /** A `postgres://` URL of a server for tests; the role must be allowed to create databases. */
  readonly database: string
  /** The catalogue; for a module, the one that it exports. */
  readonly events: C
  /** The service that publishes the event and owns the subscription. @defaultValue `'test'` */
  readonly source?: string | undefined
  /** As in `createBus`; a module exports its own as `drizzle`. */
  readonly drizzle?: Settings<D> | undefined
  /** Whether to create a database for the run and drop it afterwards, or to use the database of the URL. @defaultValue `true` */
  readonly isolated?: boolean | undefined
  /** Prepares the database for the handler, for example by creating its tables. */
  readonly prepare?: ((database: CrashDatabase) => unknown) | undefined
  /**
   * The number of effects so far, of all events together: rows, sent mails, lines of a file. Called before and after
   * each crash.
   */
  readonly effects: (database: CrashDatabase) => number | Promise<number>
  /** The number of effects of one event. @defaultValue `1` */
  readonly effectsPerEvent?: number | undefined
  /** Called after each crash, when everything has been delivered; if it throws, the run fails. */
  readonly check?: ((step: CrashStep, database: CrashDatabase) => unknown) | undefined
  /** Crashes only at these steps, for debugging. @defaultValue every step of the delivery */
  readonly only?: readonly FaultPoint[] | undefined
  /** Time limit for delivering the event after each crash, in milliseconds. @defaultValue `15000` */
  readonly timeoutMs?: number | undefined
}

/** The result of a run. */
export interface CrashReport {
  /** Each step at which the subscription was killed, with the number of effects of that event. */
  readonly crashes: readonly (CrashStep & { readonly effects: number })[]
  /** Steps of the run without a crash that did not occur again: a few depend on timing. */
  readonly notReached: readonly CrashStep[]
}

/**
 * Delivers an event to a subscription repeatedly, and kills it each time at another step of the delivery: between the
 * claim and the insert of the job, after the handler and before its receipt, and so on. Each time another instance
 * takes over. Then the event must have been delivered, with exactly one effect.
 *
 * A subscription passed as an object, or as a function that returns one, runs in this process, and the crash is
 * simulated: the bus stops for good at that step and its connections are destroyed. Memory and the handler's own
 * connections survive that, so a handler that remembers in memory what it has done passes here and fails in production.
 * A subscription passed as the URL of a module that exports `events` and `subscription` runs in separate processes,
 * which are killed with SIGKILL.
 *
 * @param subscription - if a function returns it, TypeScript cannot infer the payload from the names of the events
 * @param event - the event to publish, or a function that creates it, for events with an `eventId`
 * @example
 * ```ts
 * await crashAtEveryStep(
 *   new URL('./ledger.ts', import.meta.url),
 *   { type: 'payment.paid', tenantId: 'acme', payload: { paymentId: '42', amountCents: 4200 } },
 *   {
 *     database: databaseUrl,
 *     events,
 *     prepare: ({ query }) => query('create table entries (payment_id text, cents int)'),
 *     effects: async ({ query }) => (await query('select from entries')).length,
 *   },
 * )
 * ```
 * @throws an error that names each step after which the event was lost or did not have exactly one effect
 */
export async function crashAtEveryStep<
  const C extends EventCatalogue,
  const P extends EventPattern<C>,
  const M extends DeliveryMode = 'at-least-once',
  const D extends DrizzleOption = DrizzleOption,
>(
  subscription:
    | SubscriptionOptions<C, P, M, HandlerTransaction<D>>
    | ((
        database: CrashDatabase,
      ) =>
        | SubscriptionOptions<C, P, M, HandlerTransaction<D>>
        | Promise<SubscriptionOptions<C, P, M, HandlerTransaction<D>>>)
    | URL,
  event: NewEvent<C> | ((run: number) => NewEvent<C>),
  options: CrashOptions<C, D>,
): Promise<CrashReport> {
  checkOptions(options)
  const { events, source = 'test', drizzle } = options
  const isOwn = options.isolated !== false
  const database = isOwn ? await createTestDatabase(options.database) : openTestDatabase(options.database)
  const kit = createPublisher<C>(database, events, source)
  const start = async (): Promise<CrashInstance> => {
    if (subscription instanceof URL) return startProcess(database.url, source, subscription)
    const made = typeof subscription === 'function' ? await subscription(database) : subscription
    return startInProcess<C, D>(database.url, { events, source, drizzle }, (bus) => bus.subscribe<P, M>(made))
  }
  const newEvent = (run: number): NewEvent<C> => (typeof event === 'function' ? event(run) : event)
  try {
    if (!isOwn) await migrate(database.url)
    await options.prepare?.(database)
    return await runAll(kit, database, start, newEvent, options)
  } finally {
    await kit.bus.stop()
    await database.drop()
  }
}

async function runAll<C extends EventCatalogue>(
  kit: Publisher<C>,
  database: TestDatabase,
  start: () => Promise<CrashInstance>,
  newEvent: (run: number) => NewEvent<C>,
  options: CrashOptions<C>,
): Promise<CrashReport> {
  const { effects, effectsPerEvent = 1, check, timeoutMs = 15_000 } = options
  const dead: CrashInstance[] = []
  const problems: string[] = []
  const crashes: (CrashStep & { readonly effects: number })[] = []
  const notReached: CrashStep[] = []
  let run = 0
  let instance = await start()

  /** Publishes an event and waits until it is delivered, despite the death of the instance. */
  async function deliver(step: CrashStep | undefined): Promise<Delivered> {
    const before = await effects(database)
    await instance.arm(step)
    await kit.publish(newEvent(run))
    run += 1
    const drained = kit.bus.drain({ timeoutMs })
    // Its result is checked below.
    drained.catch(() => {})
    await Promise.race([drained.catch(() => {}), instance.died])
    const trail = await disarm(instance, timeoutMs)
    let problem: string | undefined
    if (instance.isDead) {
      dead.push(instance)
      await expireClaims(database)
      instance = await start()
      problem = await kit.bus.drain({ timeoutMs }).then(() => undefined, reasonOf)
    } else problem = await drained.then(() => undefined, reasonOf)
    const [dead_] = await kit.bus.deadLetters.list({ limit: 1000 })
    problem ??=
      dead_ === undefined
        ? undefined
        : `it became a dead letter: ${dead_.failures.at(-1)?.message ?? 'no reason is known'}`
    const made = (await effects(database)) - before
    return { effects: made, crashed: trail === undefined, trail: trail ?? [], problem }
  }

  try {
    const calm = await deliver(undefined)
    if (calm.problem !== undefined || calm.effects !== effectsPerEvent)
      throw new Error(`Without any crash: ${calm.problem ?? countsOf(calm.effects, effectsPerEvent)}`)
    const { only } = options
    for (const step of calm.trail.filter(({ point }) => only?.includes(point) ?? isOfDelivery(point))) {
      const { effects: made, crashed, problem } = await deliver(step)
      if (crashed) crashes.push({ ...step, effects: made })
      else notReached.push(step)
      if (problem !== undefined) problems.push(`- ${nameOf(step)}: ${problem}`)
      else if (made !== effectsPerEvent)
        problems.push(`- ${nameOf(step)}: ${countsOf(made, effectsPerEvent)}`)
      if (problem !== undefined) break
      await check?.(step, database)
    }
  } finally {
    await Promise.all([...dead, instance].map(async (each) => each.end()))
  }
  if (problems.length > 0)
    throw new Error(
      `The subscription does not survive a crash at every step of its delivery. After a crash at\n${problems.join('\n')}\n` +
        "docs/guarantees.md describes each of them. A handler that ran may run again: let it check by `event.id` what it has already done, or use `mode: 'exactly-once'` and `ctx.tx`.",
    )
  return { crashes, notReached }
}

/** The delivery of an event, with or without a crash. */
interface Delivered {
  readonly effects: number
  readonly crashed: boolean
  /** The steps that an instance passed without dying. */
  readonly trail: readonly CrashStep[]
  readonly problem: string | undefined
}

/** An instance that passes no step for this long has nothing left to do. */
const quietMs = 100

/**
 * Waits until an instance is idle, or has died. It passes the last of its steps, such as notifying others of a commit,
 * after everything has been delivered. Once idle, it can no longer die. Returns the steps that it passed; undefined if
 * it is dead.
 */
async function disarm(instance: CrashInstance, timeoutMs: number): Promise<readonly CrashStep[] | undefined> {
  const deadline = performance.now() + timeoutMs
  const whenQuiet = async (): Promise<readonly CrashStep[]> => {
    for (let count = -1; ;) {
      const trail = await instance.trail()
      if (trail.length === count || performance.now() > deadline) {
        await instance.arm(undefined)
        return trail
      }
      count = trail.length
      await new Promise((resolve) => setTimeout(resolve, quietMs))
    }
  }
  const trail = await Promise.race([whenQuiet(), instance.died]).catch((error: unknown) => {
    if (!instance.isDead) throw error
  })
  return instance.isDead ? undefined : (trail ?? [])
}

/** Whether a step belongs to the delivery of an event, not to an instance that starts or falls asleep. */
function isOfDelivery(point: FaultPoint): boolean {
  return !/^(?:migrate|start|stop|maintenance)\./.test(point) && point !== 'relay.asleep'
}

/** Simulates half a minute of silence: the dead worker's jobs count as lost, and pg-boss supervises its queues now. */
async function expireClaims({ query }: TestDatabase): Promise<void> {
  await query(lapseHeartbeatsSql(defaultBossSchema))
  await query(makeQueuesDueSql(defaultBossSchema))
}

function nameOf({ point, occurrence }: CrashStep): string {
  return occurrence === 1 ? `\`${point}\`` : `\`${point}\` (the ${occurrence}. time)`
}

function countsOf(made: number, expected: number): string {
  if (made < expected) return `the effect was lost: ${made} instead of ${expected}`
  return `the effect was doubled: ${made} instead of ${expected}`
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

const optionKeys = [
  'database',
  'events',
  'source',
  'drizzle',
  'isolated',
  'prepare',
  'effects',
  'effectsPerEvent',
  'check',
  'timeoutMs',
  'only',
]

function checkOptions(options: CrashOptions<EventCatalogue>): void {
  if (options === null || typeof options !== 'object')
    throw invalidOption(`Expected the options of crashAtEveryStep, got ${describe(options)}`)
  refuseUnknownKeys(options, optionKeys, 'crashAtEveryStep')
  if (!isPostgresUrl(options.database))
    throw invalidOption(
      `Expected \`database\` to be a postgres:// URL, got ${describe(options.database)}`,
      'database',
    )
  if (typeof options.effects !== 'function')
    throw invalidOption(
      `Expected \`effects\` to be a function that counts effects, got ${describe(options.effects)}`,
    )
  const unknown = options.only?.find((point) => !faultPoints.includes(point))
  if (unknown !== undefined)
    throw invalidOption(
      `Expected \`only\` to name fault points, got ${describe(unknown)}. docs/guarantees.md lists them`,
    )
  integerOption('effectsPerEvent', options.effectsPerEvent, { min: 1, max: 1_000_000, default: 1 })
  integerOption('timeoutMs', options.timeoutMs, { min: 1000, max: 3_600_000, default: 15_000 })
}
