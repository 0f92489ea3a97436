import { defineEvents, isSourceName, type EventCatalogue } from './events/catalogue.ts'
import { limits } from './foundation/limits.ts'
import { nonThrowing, stderrLogger, type BusLogger } from './foundation/logger.ts'
import { describe, integerOption, refuseUnknownKeys, invalidOption } from './foundation/options.ts'
import { resolveBossSchema } from './database/boss-schema.ts'
import type { DatabaseOption } from './database/database.ts'
import { resolveDrizzle, type DrizzleOption, type Settings } from './database/drizzle-handle.ts'
import type { PublishSettings } from './outbox/publish/publish.ts'
import type { DefaultsOption, EventDefaults } from './outbox/publish/publisher.ts'

/** What `createBus` takes. */
export interface BusOptions<
  C extends EventCatalogue,
  D extends DrizzleOption = DrizzleOption,
  E extends EventDefaults | undefined = EventDefaults | undefined,
> {
  /**
   * Where the bus's own connections go: a `postgres://` URL, a node-postgres pool configuration, or a function that gives
   * one of these. The function is asked again for each new connection, for 10 seconds at most, so that a failover to
   * another address, port or secret needs no restart. A direct connection, not a pooler in transaction mode. What of a URL
   * works is in docs/drivers.md; what cannot be made out is refused. `max` of a configuration counts all connections of a running
   * bus together: one that listens, those of relay and workers, those of exactly-once handlers. At least 2, with exactly-once
   * subscriptions 3; left out, 11, and 10 more for such handlers.
   */
  readonly database: DatabaseOption
  /** The catalogue made by `defineEvents`. */
  readonly events: C
  /** The name of this service: the source of what it publishes, the owner of its subscriptions. */
  readonly source: string
  /** pino, `fastify.log` or alike. @defaultValue warnings and errors as JSON lines on standard error */
  readonly logger?: BusLogger | undefined
  /**
   * Most bytes of one payload as JSON text, 1 to 16,777,216. Large payloads cost every subscriber memory.
   * @defaultValue `262144` (256 KiB)
   */
  readonly maxPayloadBytes?: number | undefined
  /**
   * The PostgreSQL schema of pg-boss: another one where `pgboss` is somebody else's already. One for all services that share a
   * database, and for good: `bus.migrate()` writes it down. 1 to 50 bytes, any name that is not `bus`, `public` or one of
   * PostgreSQL's, without quotes, dots, `%`, `$` and `\\`; upper case is kept.
   * @defaultValue `'pgboss'`
   */
  readonly bossSchema?: string | undefined
  /**
   * How `ctx.tx` of exactly-once handlers, and the `db` of `tenant.query`, are made: the settings of your own Drizzle handle without its
   * connection, such as `{ casing: 'snake_case', schema }`, or a function that makes a handle of the pool it gets, on
   * node-postgres: `(client) => drizzle({ client, relations })`. The function is called once, at the start; with it, Drizzle is the copy
   * and version that it uses. See docs/drizzle.md.
   * @defaultValue no settings
   */
  readonly drizzle?: Settings<D> | undefined
  /**
   * What published events get that they do not have themselves: `tenantId`, `correlationId`, `causationId`, `subject`, entries of
   * `metadata`; an object, or a function that is asked at each publish, such as `() => requestContext.getStore()` of an
   * AsyncLocalStorage. Events that handlers publish take tenant, correlation and cause from their event first.
   */
  readonly defaults?: DefaultsOption<E> | undefined
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveBusOptions<C extends EventCatalogue>(
  options: BusOptions<C>,
): {
  settings: PublishSettings
  logger: BusLogger
  bossSchema: string
  drizzle: DrizzleOption
  defaults: unknown
} {
  if (options === null || typeof options !== 'object')
    throw invalidOption(`Expected the options of a bus, got ${describe(options)}`)
  refuseUnknownKeys(
    options,
    ['database', 'events', 'source', 'logger', 'maxPayloadBytes', 'bossSchema', 'drizzle', 'defaults'],
    'createBus',
  )
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
  }
}
