import type { Bus } from '../../bus-interface.ts'
import { UsageError } from '../command/usage-error.ts'
import { visible } from '../output/visible-text.ts'

/** The digits of the id of a group of errors. */
const idLength = 16

/** Fewer first digits name too many. */
const minLength = 6

/** A beginning is looked for among so many groups: those with most dead letters. */
const maxGroups = 1000

/**
 * The whole id of a group of dead letters.
 *
 * @param text - the id, or its first six characters or more where they name one group alone
 * @param list - what lists the groups, for the message
 * @throws a {@link UsageError} if there is no such group, or several
 */
export async function resolveGroup<T extends string | undefined>(
  bus: Bus,
  text: T,
  list: string,
): Promise<T> {
  if (text === undefined) return text
  const shown = visible(text.slice(0, 80))
  const unknown = new UsageError(`There is no group ${shown} of dead letters. See: ${list}`)
  if (!/^[0-9a-f]{1,16}$/.test(text)) throw unknown
  if (text.length < minLength)
    throw new UsageError(
      `Expected at least the first ${minLength} characters of a group, got ${shown}. See: ${list}`,
    )
  if (text.length === idLength) {
    const [letter] = await bus.deadLetters.list({ fingerprint: text, limit: 1 })
    if (letter === undefined) throw unknown
    return text
  }
  const groups = await bus.deadLetters.groups({ limit: maxGroups })
  const ids = groups.flatMap(({ fingerprint }) =>
    fingerprint?.startsWith(text) === true ? [fingerprint] : [],
  )
  const [id] = ids
  if (ids.length > 1)
    throw new UsageError(`${shown} names several groups: ${ids.slice(0, 5).join(', ')}. See: ${list}`)
  if (groups.length === maxGroups)
    throw new UsageError(
      `There are too many groups to look ${shown} up: give all ${idLength} characters. See: ${list}`,
    )
  if (id === undefined) throw unknown
  return id as T
}
