import { defineEvents, isSourceName, type EventCatalogue } from './events/catalogue.ts'
import { limits } from './foundation/limits.ts'
import { nonThrowing, stderrLogger, type BusLogger } from './foundation/logger.ts'
import {
  assertObject,
  describe,
  integerOption,
  refuseUnknownKeys,
  invalidOption,
} from './foundation/options.ts'
import type { HealthLimits } from './bus-health.ts'
import type { AdmissionOption } from './health/admission.ts'
import type { CanaryOption } from './health/canary.ts'
import { resolveBossSchema } from './database/boss-schema.ts'
import {
  callbackNames,
  resolveCallbacks,
  type DeadLetterCallbacks,
} from './delivery/subscriptions/dead-letter-callbacks.ts'
import type { DatabaseOption } from './database/database.ts'
import { resolveDrizzle, type DrizzleOption, type Settings } from './database/drizzle-handle.ts'
import type { DefaultsOption, EventDefaults } from './outbox/publish/publisher.ts'
import { resolveRetention, type RetentionOptions } from './retention/policy.ts'
import type { PublishSettings } from './outbox/publish/check-events.ts'
import {
  resolveMetrics,
  type MetricsOption,
  type ResolvedMetrics,
} from './telemetry/prometheus/metrics-option.ts'
import {
  resolveTelemetry,
  type ResolvedTelemetry,
  type TelemetryOption,
} from './telemetry/telemetry-option.ts'

/** Options of `createBus`. */
export interface BusOptions<
  C extends EventCatalogue,
  D extends DrizzleOption = DrizzleOption,
  E extends EventDefaults | undefined = EventDefaults | undefined,
> extends DeadLetterCallbacks {
  /**
   * The database for the bus's own connections: a `postgres://` URL, a node-postgres pool configuration, or a function
   * that returns one of these. The function is called again for each new connection, and may take up to 10 seconds, so
   * that a failover to another address, port or secret needs no restart. Use a direct connection, not a pooler in
   * transaction mode. docs/drivers.md lists the supported parts of a URL; a setting that cannot be interpreted is
   * refused. `max` of a configuration limits all connections of a running bus together: one that listens, those of the
   * relay and the workers, and those of exactly-once handlers. The minimum is 2, or 3 with exactly-once subscriptions;
   * the default is 11, plus 10 for exactly-once handlers.
   */
  readonly database: DatabaseOption
  /** The catalogue made by `defineEvents`. */
  readonly events: C
  /** The name of this service: the source of its events, and the owner of its subscriptions. */
  readonly source: string
  /** A logger such as pino or `fastify.log`. @defaultValue warnings and errors as JSON lines on standard error */
  readonly logger?: BusLogger | undefined
  /**
   * Maximum bytes of one payload as JSON text, 1 to 16,777,216. Large payloads use memory in every subscriber.
   * @defaultValue `262144` (256 KiB)
   */
  readonly maxPayloadBytes?: number | undefined
  /**
   * The PostgreSQL schema of pg-boss. Choose another one if something else already uses `pgboss`. All services that
   * share a database use the same schema, and it cannot be changed later: `bus.migrate()` records it. 1 to 50 bytes,
   * any name except `bus`, `public` and those of PostgreSQL, without quotes, dots, `%`, `$` and `\\`; upper case is
   * preserved.
   * @defaultValue `'pgboss'`
   */
  readonly bossSchema?: string | undefined
  /**
   * How `ctx.tx` of exactly-once handlers and the `db` of `tenant.query` are made: the settings of your own Drizzle
   * handle without its connection, such as `{ casing: 'snake_case', schema }`, or a function that makes a node-postgres
   * handle of the pool that it receives: `(client) => drizzle({ client, relations })`. The function is called once, at
   * the start, and determines which copy and version of Drizzle is used. See docs/drizzle.md.
   * @defaultValue no settings
   */
  readonly drizzle?: Settings<D> | undefined
  /**
   * Values for fields that a published event does not set itself: `tenantId`, `correlationId`, `causationId`,
   * `subject`, entries of `metadata`. An object, or a function that is called for each publish, such as `() =>
   * requestContext.getStore()` of an AsyncLocalStorage. Events that handlers publish take tenant, correlation and cause
   * from the handled event first.
   */
  readonly defaults?: DefaultsOption<E> | undefined
  /**
   * How long events and what is recorded about them are kept, and where they are archived before they are dropped. See
   * docs/guide/retention.md.
   * @defaultValue the log is kept for ever; keys for 30 days
   */
  readonly retention?: RetentionOptions | undefined
  /** From when on `bus.health()` calls something a problem. */
  readonly health?: HealthOption | undefined
  /**
   * Test events that go through outbox, relay, queue, worker and receipt, and say how long each step took: `true` for calls of
   * `bus.canary`, `{ everySeconds }` for one in so many seconds, 2 to 86,400, by one of the processes that have the option. They
   * are of the tenant and the subscription `bossbus.canary`, reach no other subscription, are in no statistics, and are removed from the log when
   * they are over. Set it when all processes run a version that has it.
   * @defaultValue none
   */
  readonly canary?: CanaryOption | undefined
  /**
   * When `publish`, `publishMany` and `tryPublish` refuse events, or wait, because too many wait already. Handlers publish without this
   * limit, because they work the backlog off. See docs/guide/health.md.
   * @defaultValue no limit
   */
  readonly admission?: AdmissionOption | undefined
  /**
   * What OpenTelemetry is told: spans, with the trace context and baggage that travel with events, and metrics. Nothing is done, and nothing
   * stored, while no SDK is registered; one may be registered after the bus has started. See docs/guide/telemetry.md.
   * @defaultValue `{ spans: true, createSpans: false, metrics: true }`
   */
  readonly telemetry?: TelemetryOption | undefined
  /**
   * What `bus.metrics()` tells Prometheus. With the option, even `{}`, the process counts from its start on; without it, from the first call
   * of `bus.metrics()` on. See docs/guide/metrics.md.
   * @defaultValue `{ database: true, tenants: 0 }`
   */
  readonly metrics?: MetricsOption | undefined
}

/** The option `health` of `createBus`. */
export interface HealthOption {
  /**
   * How long a loop of the process may go without progress, in seconds, 1 to 3,600. After that `live` is false.
   * @defaultValue `120`
   */
  readonly loopLimitSeconds?: number | undefined
  /** How old a transaction may be, in seconds, 1 to 86,400. @defaultValue `300` */
  readonly transactionLimitSeconds?: number | undefined
}

export const busOptionNames: readonly string[] = [
  ...['database', 'events', 'source', 'logger', 'maxPayloadBytes', 'bossSchema', 'drizzle', 'defaults'],
  ...callbackNames,
  ...['retention', 'health', 'canary', 'admission', 'telemetry', 'metrics'],
]

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveBusOptions<C extends EventCatalogue>(
  options: BusOptions<C>,
): {
  settings: PublishSettings
  logger: BusLogger
  bossSchema: string
  drizzle: DrizzleOption
  defaults: unknown
  callbacks: DeadLetterCallbacks
  retention: RetentionOptions
  health: HealthLimits
  telemetry: ResolvedTelemetry
  metrics: ResolvedMetrics
} {
  if (options === null || typeof options !== 'object')
    throw invalidOption(`Expected the options of a bus, got ${describe(options)}`)
  refuseUnknownKeys(options, busOptionNames, 'createBus')
  const { events, source, logger = stderrLogger } = options
  if (events === null || typeof events !== 'object')
    throw invalidOption(
      `Expected \`events\` to be the catalogue made by defineEvents, got ${describe(events)}`,
      'events',
    )
  if (!isSourceName(source)) {
    throw invalidOption(
      `Expected \`source\` to be the name of this service, 1 to ${limits.sourceLength} characters, got ${describe(source)}`,
      'source',
    )
  }
  for (const method of ['debug', 'info', 'warn', 'error'] as const) {
    if (typeof (logger as Partial<BusLogger> | null)?.[method] !== 'function')
      throw invalidOption(`Expected \`logger\` to have a method \`${method}\``, 'logger')
  }
  const maxPayloadBytes = integerOption('maxPayloadBytes', options.maxPayloadBytes, limits.payloadBytes)
  return {
    settings: Object.freeze({ catalogue: defineEvents(events), source, maxPayloadBytes }),
    logger: nonThrowing(logger),
    bossSchema: resolveBossSchema(options.bossSchema),
    drizzle: resolveDrizzle(options.drizzle),
    defaults: options.defaults,
    callbacks: resolveCallbacks('createBus', options),
    retention: resolveRetention(options.retention),
    health: resolveHealth(options.health),
    telemetry: resolveTelemetry(options.telemetry),
    metrics: resolveMetrics(options.metrics),
  }
}

function resolveHealth(given: HealthOption = {}): HealthLimits {
  assertObject('`health` to be like { loopLimitSeconds, transactionLimitSeconds }', given)
  refuseUnknownKeys(given, ['loopLimitSeconds', 'transactionLimitSeconds'], '`health`')
  const limit = (name: keyof HealthLimits): number =>
    integerOption(`health.${name}`, given[name], limits[`health.${name}`])
  return Object.freeze({
    loopLimitSeconds: limit('loopLimitSeconds'),
    transactionLimitSeconds: limit('transactionLimitSeconds'),
  })
}
