import type { CheckedGrant } from './access.ts'
import { toJsonText } from './answer-size.ts'
import { forbidden } from './errors.ts'
import { readObject, readQuery } from './fields.ts'
import type { ApiBus, ApiRoute } from './route.ts'

/** A request for a route, as a host has received it. */
export interface RouteRequest {
  readonly grant: CheckedGrant
  /** Decoded. */
  readonly params: Readonly<Record<string, string>>
  /** The query, after the question mark. */
  readonly query: string
  /** Parsed by `parseRequestJson`; undefined if there is none. */
  readonly body: unknown
}

/**
 * Refuses a request that is not granted: before its body is read.
 *
 * @throws an {@link HttpError} `BUS_HTTP_FORBIDDEN`
 */
export function assertGranted(
  { action, handleForTenant }: ApiRoute,
  grant: CheckedGrant | undefined,
): CheckedGrant {
  if (grant === undefined) throw forbidden('You may not use this API')
  if (action !== undefined && !grant.allows(action)) throw forbidden(`You may not call ${action}`)
  if (grant.tenantId !== undefined && handleForTenant === undefined)
    throw forbidden(`You may not call ${action ?? 'this'}: it is not for one tenant alone`)
  return grant
}

/**
 * Carries out a request, and resolves to its answer as JSON.
 *
 * @throws the errors of the method of the bus; an {@link HttpError}
 */
export async function callRoute(bus: ApiBus, route: ApiRoute, request: RouteRequest): Promise<string> {
  const { action = route.url, params = {}, query = {}, body = {} } = route
  const grant = assertGranted(route, request.grant)
  const call = {
    ...{ bus, grant, by: grant.by },
    params: Object.fromEntries(Object.keys(params).map((name) => [name, request.params[name]])),
    query: readQuery(query, request.query, action),
    body: readObject(body, request.body === undefined ? {} : request.body, `the body of ${action}`),
  }
  const { tenantId } = grant
  const answer =
    tenantId === undefined
      ? await route.handle(call)
      : await route.handleForTenant?.({ ...call, tenantId, tenant: bus.tenant(tenantId) })
  return toJsonText(answer)
}
