import type { EventCatalogue } from '../events/catalogue.ts'
import { firstCharacters } from '../events/characters.ts'
import { ConfigurationError } from '../events/errors.ts'
import { textProblem } from '../events/json.ts'
import { limits } from '../events/limits.ts'
import { describe } from '../events/options.ts'
import { isThenable } from '../events/other-realms.ts'
import type { EventDefaults, Publisher } from '../outbox/publisher.ts'

/** What of a request is used for the correlation id. */
interface IdentifiedRequest {
  readonly id: unknown
}

/**
 * The bus as one request sees it: events get what `defaults` says of the request, and the request's id as the correlation id, unless
 * they have their own.
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
  const own = toDefaults(request.id)
  if (defaults === undefined) return bus.with(own)
  return bus.with(() => {
    const given: unknown = defaults(request)
    // What it is otherwise, `with` refuses.
    if (given === undefined) return own
    if (given === null || typeof given !== 'object' || Array.isArray(given) || isThenable(given))
      return given as EventDefaults
    return { ...given, correlationId: (given as EventDefaults).correlationId ?? own.correlationId }
  }) as Publisher<C, Defaulted>
}

/**
 * A request's id may come from a header, so from anybody: one that is too long is cut, one that PostgreSQL cannot
 * store is left out. It must not decide whether a business transaction commits.
 */
function toDefaults(requestId: unknown): EventDefaults {
  if (typeof requestId !== 'string' && typeof requestId !== 'number') return {}
  const text = firstCharacters(String(requestId), limits.keyLength)
  return text === '' || textProblem(text) !== undefined ? {} : { correlationId: text }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function assertRequestDefaults(defaults: unknown): void {
  if (defaults === undefined || typeof defaults === 'function') return
  throw new ConfigurationError(
    'BUS_INVALID_OPTION',
    `Expected \`defaults\` to be a function like (request) => ({ tenantId: request.user.tenantId }), got ${describe(defaults)}`,
  )
}
