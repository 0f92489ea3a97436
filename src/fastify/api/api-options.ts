import type { FastifyRequest } from 'fastify'
import {
  assertObject,
  booleanOption,
  describe,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import type { ApiAction, ApiGrant } from '../../http/access.ts'

/** What a request asks for. */
export interface ApiAsked {
  /** The name of a method of the bus, such as `subscriptions.pause`. Undefined for the routes about the API itself. */
  readonly action: ApiAction | undefined
  /** Whether it changes anything. */
  readonly changes: boolean
}

type Granted = ApiGrant | undefined | null | false

/**
 * Decides about a request before its body is read: who sends it and what they may do, or nothing, which is answered with 403. What it throws
 * is answered with its `statusCode`, so it may say 401.
 */
export type ApiAccess = (request: FastifyRequest, asked: ApiAsked) => Granted | Promise<Granted>

/** The probes of an orchestrator, each with a path of its own, or none. */
export interface ApiProbes {
  /** Whether the loops of the process make progress. @defaultValue no route */
  readonly live?: boolean | string | undefined
  /** Whether the bus has started and the database answers. @defaultValue no route */
  readonly ready?: boolean | string | undefined
}

/** What the plugin serves over HTTP. Nothing without these options. */
export interface ApiOptions {
  /**
   * Who may use the API for operators, under `prefix` and `/api`. `'development'`: whoever sends a request from this machine to this machine,
   * without a proxy, may do everything, `publishByHand` included.
   * @defaultValue there is no API
   */
  readonly access?: ApiAccess | 'development' | undefined
  /** The path before the API. `'/'` for none. @defaultValue `'/bus'` */
  readonly prefix?: string | undefined
  /** Whether all changes are refused, whatever `access` grants. @defaultValue `false` */
  readonly readOnly?: boolean | undefined
  /**
   * Routes for the probes of an orchestrator, which anybody may ask: `true` for `/health/live` and `/health/ready`, a path in place of
   * `/health`, or each by itself. They answer 200 or 503, and say nothing but that.
   * @defaultValue `false`
   */
  readonly health?: boolean | string | ApiProbes | undefined
  /**
   * A route for Prometheus, which anybody may ask: `true` for `/metrics`, or another path. It answers `bus.metrics()`.
   * @defaultValue `false`
   */
  readonly metrics?: boolean | string | undefined
}

export interface ResolvedApiOptions {
  readonly access: ApiAccess | 'development' | undefined
  /** Without a slash at its end: empty for none. */
  readonly prefix: string
  readonly readOnly: boolean
  readonly livePath: string | undefined
  readonly readyPath: string | undefined
  readonly metricsPath: string | undefined
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveApiOptions(given: ApiOptions | undefined): ResolvedApiOptions | undefined {
  if (given === undefined) return undefined
  assertObject('`api` like { access, prefix, health }', given)
  refuseUnknownKeys(given, ['access', 'prefix', 'readOnly', 'health', 'metrics'], '`api`')
  const { access, prefix = '/bus', health = false, metrics } = given
  if (access !== undefined && access !== 'development' && typeof access !== 'function')
    throw invalidOption(
      `Expected \`api.access\` to be 'development', or a function like (request) => ({ by: request.user.name, allow: 'read' }), got ${describe(access)}`,
      'api.access',
    )
  const probes = resolveProbes(health)
  const open = { ...probes, metricsPath: switchedPath('api.metrics', metrics, '/metrics') }
  if (access === undefined && Object.values(open).every((path) => path === undefined))
    throw invalidOption(
      'Expected `api.access`, which says who may use the API, or `api.health` or `api.metrics`: without them there is nothing to serve',
      'api.access',
    )
  return Object.freeze({
    access,
    prefix: prefix === '/' ? '' : pathOption('api.prefix', prefix),
    readOnly: booleanOption('api.readOnly', given.readOnly, false),
    ...open,
  })
}

function resolveProbes(given: unknown): Pick<ResolvedApiOptions, 'livePath' | 'readyPath'> {
  if (typeof given === 'boolean' || typeof given === 'string') {
    if (given === false) return { livePath: undefined, readyPath: undefined }
    const path = given === true ? '/health' : pathOption('api.health', given)
    return { livePath: `${path}/live`, readyPath: `${path}/ready` }
  }
  assertObject('`api.health` to be true, a path like /health, or paths like { live, ready }', given)
  refuseUnknownKeys(given, ['live', 'ready'], '`api.health`')
  const { live, ready } = given as Readonly<Record<'live' | 'ready', unknown>>
  return {
    livePath: switchedPath('api.health.live', live, '/health/live'),
    readyPath: switchedPath('api.health.ready', ready, '/health/ready'),
  }
}

/** A path, or whether there is one. */
function switchedPath(name: string, given: unknown, path: string): string | undefined {
  if (given === undefined || given === false) return undefined
  return given === true ? path : pathOption(name, given)
}

function pathOption(name: string, given: unknown): string {
  if (typeof given === 'string' && /^(?:\/[A-Za-z0-9._~-]+)+$/.test(given)) return given
  throw invalidOption(`Expected \`${name}\` to be a path like /bus, got ${describe(given)}`, name)
}
