import type { EventCatalogue } from '../events/catalogue.ts'
import { limits } from '../foundation/limits.ts'
import { describe, invalidOption } from '../foundation/options.ts'
import type { EventDefaults, Publisher } from '../outbox/publish/publisher.ts'
import { firstCharacters, invalidTextReason } from '../foundation/text.ts'

/** The part of a request that determines the correlation id. */
interface IdentifiedRequest {
  readonly id: unknown
}

/**
 * The bus for one request. Events that do not set them get the fields that `defaults` returns for the request, and the
 * request's id as the correlation id.
 */
export function createRequestBus<
  C extends EventCatalogue,
  Defaulted extends 'tenantId',
  R extends IdentifiedRequest,
>(
  bus: Pick<Publisher<C, Defaulted>, 'with'>,
  request: R,
  defaults: ((request: R) => EventDefaults | undefined) | undefined,
): Publisher<C, Defaulted> {
  // The defaults nearest to an event take precedence.
  const identified = bus.with(toDefaults(request.id))
  return defaults === undefined ? identified : identified.with(() => defaults(request))
}

/**
 * A request's id may come from a header, and so from anybody. If it is too long it is truncated; if PostgreSQL cannot
 * store it, it is omitted. It must not decide whether a business transaction commits.
 */
function toDefaults(requestId: unknown): EventDefaults {
  if (typeof requestId !== 'string' && typeof requestId !== 'number') return {}
  const text = firstCharacters(String(requestId), limits.keyLength)
  return text === '' || invalidTextReason(text) !== undefined ? {} : { correlationId: text }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function assertRequestDefaults(defaults: unknown): void {
  if (defaults === undefined || typeof defaults === 'function') return
  throw invalidOption(
    `Expected \`defaults\` to be a function like (request) => ({ tenantId: request.user.tenantId }), got ${describe(defaults)}`,
    'defaults',
  )
}
