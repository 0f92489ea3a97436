import type { Bus } from '../bus-interface.ts'
import type { BusErrorCode } from '../foundation/errors.ts'
import { invalidOption } from '../foundation/options.ts'
import type { Tenant } from '../tenancy/tenant.ts'
import type { EventCatalogue } from '../events/catalogue.ts'
import type { ApiAction, CheckedGrant } from './access.ts'
import { forbidden } from './errors.ts'
import type { Fields, Values } from './fields.ts'
import type { Schema } from './schemas/schema.ts'

/** What the routes need of a bus. */
export type ApiBus = Pick<
  Bus,
  | 'audit'
  | 'blockedKeys'
  | 'canary'
  | 'cancel'
  | 'catalogue'
  | 'deadLetters'
  | 'deliveries'
  | 'erase'
  | 'erasures'
  | 'events'
  | 'explain'
  | 'health'
  | 'lookup'
  | 'operations'
  | 'prune'
  | 'publishByHand'
  | 'quarantine'
  | 'queries'
  | 'replay'
  | 'retention'
  | 'stats'
  | 'subscriptions'
  | 'tenant'
>

/** A request that may be carried out, translated. */
interface ApiCall<P extends Fields, Q extends Fields, B extends Fields> {
  readonly bus: ApiBus
  readonly grant: CheckedGrant
  /** Who sends it, for the audit. */
  readonly by: string
  readonly params: Values<P>
  readonly query: Values<Q>
  readonly body: Values<B>
}

/** A request of somebody who belongs to a tenant. */
interface TenantCall<P extends Fields, Q extends Fields, B extends Fields> extends ApiCall<P, Q, B> {
  /** Its reads, under row-level security. */
  readonly tenant: Tenant<EventCatalogue>
  readonly tenantId: string
}

interface RouteParts<P extends Fields, Q extends Fields, B extends Fields> {
  /** Undefined for what everybody may ask who may ask anything. */
  readonly action: ApiAction | undefined
  readonly method: 'GET' | 'POST'
  /** Below the prefix of the API, such as `/events/:id`. */
  readonly url: string
  /** The heading in the document under which it is listed. */
  readonly tag: string
  /** A sentence for the document. */
  readonly summary: string
  readonly description?: string
  readonly params?: P
  readonly query?: Q
  readonly body?: B
  /** The most bytes that a body may have. @defaultValue 1 MiB */
  readonly bodyLimit?: number
  /** The status of success. @defaultValue `200` */
  readonly status?: 200 | 202
  readonly answer: Schema
  /** The codes of errors that this route has besides those that all have. */
  readonly errors?: readonly BusErrorCode[]
  readonly handle: (call: ApiCall<P, Q, B>) => Promise<unknown>
  /** The same for somebody who belongs to a tenant. Without it, it is refused. */
  readonly handleForTenant?: (call: TenantCall<P, Q, B>) => Promise<unknown>
}

/** A route of the API: a method of the bus, with everything that a host, the document and the tests need to know of it. */
export type ApiRoute = RouteParts<Fields, Fields, Fields>

/** Checks the types of a route, and forgets those of its parameters. */
export function defineRoute<const P extends Fields, const Q extends Fields, const B extends Fields>(
  parts: RouteParts<P, Q, B>,
): ApiRoute {
  return Object.freeze(parts) as unknown as ApiRoute
}

/**
 * What a person who belongs to a tenant asks for, limited to that tenant.
 *
 * @throws an {@link HttpError} `BUS_HTTP_FORBIDDEN` if it names another one
 */
export function ofTenant<T extends { readonly tenantId?: string | undefined }>(
  given: T,
  tenantId: string,
): T & { readonly tenantId: string } {
  if (given.tenantId !== undefined && given.tenantId !== tenantId)
    throw forbidden('Expected no other tenant than your own')
  return { ...given, tenantId }
}

/**
 * The same for a selection of what is to be changed. One without a condition is refused to them as it is to operators: it would mean all that
 * the tenant has.
 *
 * @throws besides, a {@link ConfigurationError} `BUS_INVALID_OPTION` if it says nothing
 */
export function selectionOfTenant<T extends { readonly tenantId?: string | undefined }>(
  given: T | undefined,
  tenantId: string,
  action: ApiAction,
): T & { readonly tenantId: string } {
  if (given === undefined || Object.values(given).every((value) => value === undefined))
    throw invalidOption(
      `Expected at least one condition in the selection of ${action}: \`tenantId\` means all that your tenant has`,
    )
  return ofTenant(given, tenantId)
}

/** What is asked for in the scope of the tenant, where reads name none. */
export function inTenant<T extends { readonly tenantId?: string | undefined }>(
  given: T,
  ownTenantId: string,
): Omit<T, 'tenantId'> {
  const { tenantId: _own, ...rest } = ofTenant(given, ownTenantId)
  return rest
}
