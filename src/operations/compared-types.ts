import { compilePatterns } from '../events/pattern.ts'
import { describe, invalidOption } from '../foundation/options.ts'
import type { CheckedFilter } from './history-filter.ts'
import type { PayloadView } from './payload-view.ts'

/** The types whose payloads are compared, and those of the filter that are not. */
export function comparedTypes(
  { comparable }: Pick<PayloadView, 'comparable'>,
  { payload, types, patterns }: CheckedFilter,
): { readonly compared: readonly string[] | undefined; readonly unsearchedTypes: readonly string[] } {
  if (payload === undefined) return { compared: undefined, unsearchedTypes: [] }
  const isWanted = patterns === undefined ? () => true : compilePatterns(patterns)
  const known = comparable(payload)
  const wanted = (types ?? [...known.keys()]).filter(isWanted)
  const compared = wanted.filter((type) => known.get(type) === true)
  if (compared.length === 0)
    throw invalidOption(
      'Expected `payload` to name values that may be shown: of every type of this search the catalogue hides one of them, or does not know the type',
      'payload',
    )
  return { compared, unsearchedTypes: wanted.filter((type) => known.get(type) !== true) }
}

/** Maximum number of types that an error names. */
const maxNamedTypes = 5

/**
 * Refuses a search that would leave out events of some types, for calls whose answer cannot say so.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function refuseUnsearched(view: Pick<PayloadView, 'comparable'>, filter: CheckedFilter): void {
  const { unsearchedTypes } = comparedTypes(view, filter)
  if (unsearchedTypes.length === 0) return
  const others = unsearchedTypes.length > maxNamedTypes ? ' and others' : ''
  const named = `${unsearchedTypes.slice(0, maxNamedTypes).map(describe).join(', ')}${others}`
  throw invalidOption(
    `Expected \`payload\` to name values that may be shown of every type of this search: the catalogue hides one of them, or does not know the type, for ${named}. Name the types to search in \`type\`, or call events.search, which leaves these out and says so`,
    'payload',
  )
}
