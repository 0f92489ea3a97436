import type { FastifyRequest } from 'fastify'
import { assertObject, describe, invalidOption, refuseUnknownKeys } from '../../foundation/options.ts'

/** What a request asks for. */
export interface ApiAccess {
  /** The method of the bus, such as `subscriptions.pause`. */
  readonly action: string
  /** Whether it changes anything. */
  readonly changes: boolean
  /** The subscription that it names. */
  readonly subscription: string | undefined
}

/** Who sends a request. */
export interface ApiActor {
  /** The person or program, 1 to 255 characters: recorded in `bus.audit` with each change. */
  readonly by: string
}

/** The routes for operators, which are off without these options. */
export interface ApiOptions {
  /**
   * Decides about each request, before its body is read: who sends it, or undefined, which is answered with 403. What it throws is
   * answered as Fastify does, so it may say 401 itself.
   */
  readonly authorize: (
    request: FastifyRequest,
    access: ApiAccess,
  ) => ApiActor | undefined | Promise<ApiActor | undefined>
  /** The path before all routes. @defaultValue `'/bus'` */
  readonly prefix?: string | undefined
}

export interface ResolvedApiOptions {
  readonly authorize: ApiOptions['authorize']
  readonly prefix: string
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveApiOptions(given: ApiOptions | undefined): ResolvedApiOptions | undefined {
  if (given === undefined) return undefined
  assertObject('`api` like { authorize, prefix }', given)
  refuseUnknownKeys(given, ['authorize', 'prefix'], '`api`')
  const { authorize, prefix = '/bus' } = given
  if (typeof authorize !== 'function')
    throw invalidOption(
      `Expected \`api.authorize\` to be a function like (request, { action }) => ({ by: request.user.name }), got ${describe(authorize)}: without it nobody may use the routes`,
      'api.authorize',
    )
  if (typeof prefix !== 'string' || !/^(?:\/[A-Za-z0-9._~-]+)+$/.test(prefix))
    throw invalidOption(
      `Expected \`api.prefix\` to be a path like /bus, got ${describe(prefix)}`,
      'api.prefix',
    )
  return { authorize, prefix }
}
