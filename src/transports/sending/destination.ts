import type { StoredEvent } from '../../events/envelope.ts'
import { describe, invalidOption } from '../../foundation/options.ts'

/** Where an event goes: a name, or a function that gives one for each event. */
export type Destination = string | ((event: StoredEvent) => string)

/** There is no such destination: the event can never be sent. */
export class InvalidDestinationError extends TypeError {
  override readonly name = 'InvalidDestinationError'
}

/**
 * Makes the function that names the topic, subject or queue of an event.
 *
 * @param problemOf - says what is wrong with a name; undefined if nothing is
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION` for a name that the system cannot have. The function throws an {@link InvalidDestinationError} for one
 */
export function destinationOption(
  option: string,
  given: Destination,
  problemOf: (name: string) => string | undefined,
): (event: StoredEvent) => string {
  if (typeof given === 'string') {
    const problem = problemOf(given)
    if (problem !== undefined)
      throw invalidOption(`Expected \`${option}\` ${problem}, got ${describe(given)}`, option)
    return () => given
  }
  if (typeof given !== 'function')
    throw invalidOption(`Expected \`${option}\` to be a text or a function, got ${describe(given)}`, option)
  return (event) => {
    const name: unknown = given(event)
    const problem = typeof name === 'string' ? problemOf(name) : 'to give a text'
    if (problem === undefined) return String(name)
    throw new InvalidDestinationError(`Expected \`${option}\` ${problem}, got ${describe(name)}`)
  }
}
