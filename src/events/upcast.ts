import { DeliveryError } from '../foundation/errors.ts'
import { isThenable } from '../foundation/cross-realm.ts'
import { redactThrown } from '../foundation/error-redaction.ts'
import type { EventDefinition } from './catalogue.ts'

/**
 * Upgrades a payload to the newest shape, through each upcast between the stored version and the catalogue's version.
 * The result is not validated, because schemas may transform and may be slow. `bossbus catalog check` validates a
 * sample of the log.
 *
 * @throws a {@link DeliveryError} `BUS_EVENT_TOO_NEW` if the payload was stored under a newer version than this code
 *   knows; `BUS_UPCAST_FAILED` if an upcast throws or returns a promise or undefined
 */
export function upcastPayload(
  type: string,
  definition: EventDefinition | undefined,
  storedVersion: number,
  payload: unknown,
): unknown {
  const newest = definition?.version ?? 1
  if (definition !== undefined && storedVersion > newest) {
    throw new DeliveryError(
      'BUS_EVENT_TOO_NEW',
      `The event was published under version ${storedVersion} of \`${type}\`, but this service only knows version ${newest}`,
      { retryable: true },
    )
  }
  let current = payload
  for (let version = storedVersion; version < newest; version += 1) {
    const step = definition?.upcast?.[version]
    if (step === undefined) continue
    try {
      current = step(current as never)
    } catch (thrown) {
      const cause = redactThrown(thrown)
      throw upcastFailed(type, version, `threw ${cause.name}`, cause)
    }
    if (isThenable(current)) {
      current.then(undefined, () => {})
      throw upcastFailed(type, version, 'returned a promise: it must be synchronous')
    }
    if (current === undefined) throw upcastFailed(type, version, 'returned undefined')
  }
  return current
}

function upcastFailed(type: string, from: number, what: string, cause?: Error): DeliveryError {
  const message = `The upcast of \`${type}\` from version ${from} to ${from + 1} ${what}`
  return new DeliveryError('BUS_UPCAST_FAILED', message, { cause })
}
