/**
 * bossbus for Fastify: `app.bus` and `request.bus`, started and stopped with the app.
 *
 * @module
 */
import type { FastifyInstance, FastifyPluginAsync, FastifyRequest } from 'fastify'
import { busOptionNames, type BusOptions } from '../bus-options.ts'
import { createBus, type Bus } from '../bus.ts'
import { resolveRun, type RunOption } from '../run-option.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import { StateError } from '../foundation/errors.ts'
import { limits } from '../foundation/limits.ts'
import {
  booleanOption,
  describe,
  integerOption,
  refuseUnknownKeys,
  invalidOption,
} from '../foundation/options.ts'
import { registerApi } from './api/api.ts'
import { resolveApiOptions, type ApiOptions, type ResolvedApiOptions } from './api/api-options.ts'
import { registerProbes } from './api/probes.ts'
import type { ApiBus } from '../http/route.ts'
import { parseCloudEventBodies } from './cloud-event-bodies.ts'
import type { EventDefaults, Publisher } from '../outbox/publish/publisher.ts'
import { closeWithProcess } from './close-with-process.ts'
import { assertRequestDefaults, createRequestBus } from './request-bus.ts'
import { watchHttpConnections } from './http-connections.ts'
import { startBus } from './start-bus.ts'

/**
 * Augment this interface with the type of your bus. `app.bus` and `request.bus` then know its events, and the plugin
 * accepts no other catalogue. `requestDefaults: 'tenantId'` declares that the plugin's option `defaults` supplies the
 * tenant of a request, so that events published through `request.bus` may omit it. Declare it once in a program:
 * TypeScript merges it everywhere.
 *
 * @example
 * ```ts
 * import type { Bus } from 'bossbus'
 *
 * declare module 'bossbus/fastify' {
 *   interface RegisteredBus {
 *     bus: Bus<typeof events>
 *     requestDefaults: 'tenantId' // only with `defaults: (request) => ({ tenantId: … })`
 *   }
 * }
 * ```
 */
// oxlint-disable-next-line typescript/no-empty-object-type, typescript/no-empty-interface -- to be merged with the service's own declaration
export interface RegisteredBus {}

/** The catalogue that `R`, a {@link RegisteredBus}, declares; any events if it declares none. */
export type CatalogueOf<R> = R extends { readonly bus: Bus<infer C, infer _Tx, infer _D> }
  ? C
  : EventCatalogue

/** `app.bus`: the bus that `R`, a {@link RegisteredBus}, declares, or a bus of any events. */
export type BusOf<R> = R extends { readonly bus: Bus<infer C, infer Tx, infer D> } ? Bus<C, Tx, D> : Bus

/** `app.bus`. */
export type AppBus = BusOf<RegisteredBus>

/** The fields that events may omit because the bus or the requests of `R` supply them. */
export type RequestDefaultsOf<R> =
  | (R extends { readonly bus: Bus<infer _C, infer _Tx, infer D> } ? D : never)
  | (R extends { readonly requestDefaults: infer D extends 'tenantId' } ? D : never)

/** The defaults that the plugin requires for a request, according to `R`. */
export type RequestDefaults<R> = R extends { readonly requestDefaults: 'tenantId' }
  ? { readonly defaults: (request: FastifyRequest) => EventDefaults & { readonly tenantId: string } }
  : { readonly defaults?: ((request: FastifyRequest) => EventDefaults | undefined) | undefined }

/** Options of the plugin besides the bus, or besides the options to create one. */
export interface BusLifecycleOptions {
  /**
   * Whether to run `bus.migrate()` before the start. The role must be allowed to create schemas, and the time counts
   * against Fastify's `pluginTimeout`: large services should migrate in a separate deployment step.
   * @defaultValue `false`
   */
  readonly migrate?: boolean | undefined
  /** The subscriptions that this process runs, as in `bus.start({ run })`. @defaultValue `'everything'` */
  readonly run?: RunOption | undefined
  /**
   * How long running handlers and HTTP requests may take to finish when the app closes, in milliseconds, 0 to
   * 3,600,000. Then the handlers' signals are aborted and connections are closed; the bus has stopped at most six
   * seconds later. Stay that much below the platform's time between SIGTERM and SIGKILL.
   * @defaultValue `30000`
   */
  readonly graceMs?: number | undefined
  /**
   * Whether SIGTERM and SIGINT close the app, and with it the bus: running handlers finish, other jobs are requeued.
   * The process ends when nothing else keeps it alive. Leave it false if something else closes the app.
   * @defaultValue `false`
   */
  readonly closeOnSignals?: boolean | undefined
  /**
   * What the plugin serves over HTTP: the API for operators, to whom `api.access` grants something, and probes for an orchestrator. See
   * docs/guide/http.md.
   * @defaultValue no routes
   */
  readonly api?: ApiOptions | undefined
}

/** The options of a bus that the plugin creates. `defaults` are those of requests: see below. */
type MadeFrom = Omit<BusOptions<CatalogueOf<RegisteredBus>>, 'defaults'>

/** The plugin's options to create a bus. */
export interface NewBusOptions extends MadeFrom, BusLifecycleOptions {
  readonly bus?: undefined
}

/** The plugin's options for an existing bus, without the options to create one. */
export interface ExistingBusOptions extends BusLifecycleOptions, Partial<Record<keyof MadeFrom, never>> {
  /**
   * A bus made by `createBus`. If it is not started yet, the app takes it over: it starts and stops with the app. If it
   * was already started, the app only uses it, and does not stop it.
   */
  readonly bus: AppBus
}

/**
 * Options of `app.register(bus, …)`: the options of {@link createBus}, or an existing bus. In addition `defaults`, a
 * function called for each publish through `request.bus`, which returns values for fields that the event does not set:
 * `(request) => ({ tenantId: request.user.tenantId })`. Unknown keys are refused.
 */
export type BusPluginOptions = (NewBusOptions | ExistingBusOptions) & RequestDefaults<RegisteredBus>

export { receiveRoute, type ReceiveRouteOptions } from './receive-route.ts'
export type { ApiAccess, ApiAsked, ApiOptions, ApiProbes } from './api/api-options.ts'
export type { ApiAction, ApiGrant } from '../http/access.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The bus of this app. */
    readonly bus: AppBus
  }
  interface FastifyRequest {
    /** Publishes with the `defaults` of this request. Events without a correlation id get the id of the request. */
    // oxlint-disable-next-line typescript/no-unnecessary-type-arguments -- the default in this program, not in those that say their bus
    readonly bus: Publisher<CatalogueOf<RegisteredBus>, RequestDefaultsOf<RegisteredBus>>
  }
}

/**
 * The Fastify plugin. Afterwards `app.bus` is the bus, and `request.bus` publishes with the request's id as the
 * correlation id. Subscribe through `app.bus` in plugins that are registered later. The bus is migrated (with `migrate:
 * true`) and started when the app becomes ready, before it listens. When the app closes, no new handler starts; running
 * handlers and requests share `graceMs` to finish, and requests may still publish.
 *
 * - Fastify closes in reverse order: register what handlers use, such as the database, before the bus.
 * - Fastify's request ids start at `req-1` in every process. Pass `genReqId: () => randomUUID()`, so that a correlation
 *   id identifies one request. Ids over 255 characters are truncated.
 * - The start must finish within Fastify's limit for a hook, its option `pluginTimeout` (10 seconds, 0 for no limit). A
 *   bus that takes longer, or fails, is stopped, and `ready()` and `listen()` reject with its error; close the app then.
 * - Without `logger` the bus logs through `app.log`, with `module: 'bossbus'` on every line.
 * - Bodies of CloudEvents (`application/cloudevents+json`, and batches) are parsed as JSON. Errors of the bus have a
 *   `statusCode`, so that a sender's mistakes are answered with 4xx: docs/errors.md.
 * - After the app is ready, Fastify accepts no more plugins: `register` fails with Fastify's own
 *   `AVV_ERR_ROOT_PLG_BOOTED`.
 *
 * @example
 * ```ts
 * import { bus } from 'bossbus/fastify'
 *
 * const app = fastify({ genReqId: () => randomUUID() })
 * await app.register(bus, { database: databaseUrl, events, source: 'payment-service', migrate: true })
 * app.bus.subscribe(openCase)
 * app.post('/payments', async (request) =>
 *   db.transaction(async (tx) => request.bus.publish(tx, { type: 'payment.paid', tenantId, payload })),
 * )
 * await app.listen({ port: 3000 })
 * ```
 * @throws from `register`: {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link StateError} if the app already has a
 *   bus, or the bus passed in was stopped. From `ready` and `listen`: the errors of `bus.migrate` and `bus.start`;
 *   `BUS_DATABASE_UNAVAILABLE` if they take too long
 */
export const bus: FastifyPluginAsync<BusPluginOptions> = Object.assign(registerBus, {
  // What the package `fastify-plugin` sets: its decorators are the app's, not those of a scope of its own.
  [Symbol.for('skip-override')]: true,
  [Symbol.for('fastify.display-name')]: 'bossbus',
  [Symbol.for('plugin-meta')]: { name: 'bossbus', fastify: '5.x' },
})

async function registerBus(app: FastifyInstance, options: BusPluginOptions): Promise<void> {
  if (app.hasDecorator('bus') || app.hasRequestDecorator('bus')) {
    throw new StateError(
      'Expected an app without a `bus`: bossbus/fastify is already registered, or another plugin uses the name',
    )
  }
  const { bus, ownsBus, migrate, run, graceMs, closeOnSignals, api } = resolveOptions(options, app)
  const { defaults } = options
  app.decorate('bus', bus)
  const requestBuses = new WeakMap<FastifyRequest, FastifyRequest['bus']>()
  app.decorateRequest('bus', {
    getter() {
      const requestBus = requestBuses.get(this) ?? createRequestBus(bus, this, defaults)
      requestBuses.set(this, requestBus)
      return requestBus
    },
  })
  parseCloudEventBodies(app)
  if (api !== undefined) {
    registerProbes(app, bus, api)
    await registerApi(app, bus as unknown as ApiBus, api)
  }
  app.addHook('onReady', async () => {
    await startBus(bus, { migrate, ownsBus, run, hookTimeoutMs: app.initialConfig.pluginTimeout ?? 0 })
  })
  if (closeOnSignals) closeWithProcess(app)
  const connections = watchHttpConnections(app)
  app.addHook('preClose', (done) => {
    connections.closeWithin(graceMs)
    // No new handler starts, but running requests may publish until they end. This call never rejects, and is awaited
    // below.
    if (ownsBus) void bus.stop({ graceMs: graceMs, keepOpen: true })
    done()
  })
  app.addHook('onClose', async () => {
    await connections.finished()
    if (ownsBus) await bus.stop({ graceMs: graceMs })
  })
}

interface ResolvedOptions {
  readonly bus: AppBus
  /** Whether the bus starts and stops with the app. */
  readonly ownsBus: boolean
  readonly migrate: boolean
  readonly run: RunOption
  readonly graceMs: number
  readonly closeOnSignals: boolean
  readonly api: ResolvedApiOptions | undefined
}

function resolveOptions(options: BusPluginOptions, app: FastifyInstance): ResolvedOptions {
  assertRequestDefaults(options.defaults)
  const lifecycle = {
    migrate: booleanOption('migrate', options.migrate, false),
    run: resolveRun(options.run),
    graceMs: integerOption('graceMs', options.graceMs, limits.graceMs),
    closeOnSignals: booleanOption('closeOnSignals', options.closeOnSignals, false),
    api: resolveApiOptions(options.api),
  }
  if (options.bus !== undefined) {
    refuseUnknownKeys(options, ['bus', ...lifecycleOptionNames], 'bossbus/fastify with an existing `bus`')
    const { bus } = options
    return Object.freeze({ bus, ownsBus: isUnstarted(bus), ...lifecycle })
  }
  refuseUnknownKeys(options, newBusOptionNames, 'bossbus/fastify')
  const given = Object.entries(options).filter(
    ([name]) => busOptionNames.includes(name) && name !== 'defaults',
  )
  const bus = createBus({
    ...(Object.fromEntries(given) as unknown as BusOptions<CatalogueOf<RegisteredBus>>),
    logger: options.logger ?? app.log.child({ module: 'bossbus' }),
  })
  return Object.freeze({ bus, ownsBus: true, ...lifecycle })
}

const lifecycleOptionNames = ['defaults', 'migrate', 'run', 'graceMs', 'closeOnSignals', 'api']

const newBusOptionNames = [...new Set([...busOptionNames, 'bus', ...lifecycleOptionNames])]

/** @throws if it is not a bus, or cannot be started any more */
function isUnstarted(bus: AppBus): boolean {
  if (typeof (bus as Partial<AppBus> | null)?.publish !== 'function') {
    throw invalidOption(`Expected \`bus\` to be a bus made by createBus, got ${describe(bus)}`, 'bus')
  }
  if (bus.state === 'stopping' || bus.state === 'stopped')
    throw new StateError(
      'Expected `bus` to be running or not started yet: a stopped bus does not start again',
    )
  return bus.state === 'created'
}
