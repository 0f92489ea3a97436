import type { EventCatalogue } from '../../events/catalogue.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { nearest } from '../../foundation/options.ts'
import { compilePatterns, isWildcard } from '../../events/pattern.ts'
import type { Subscription } from './subscription.ts'

/**
 * Warns about patterns that match no type of the catalogue, because most of them are misspelt. They stay registered,
 * because other services may publish types that this one does not know.
 */
export function warnOfIdlePatterns(
  subscriptions: readonly Subscription[],
  catalogue: EventCatalogue,
  logger: BusLogger,
): void {
  const types = Object.keys(catalogue)
  for (const { name, patterns } of subscriptions) {
    for (const pattern of patterns) {
      if (!isWildcard(pattern) || types.some(compilePatterns([pattern]))) continue
      const didYouMean = nearest(pattern, types.flatMap(likePatterns))
      logger.warn(
        { subscription: name, pattern, ...(didYouMean === undefined ? {} : { didYouMean }) },
        'a pattern of a subscription matches no event type of the catalogue',
      )
    }
  }
}

/** The patterns that were likely meant for a type: `order.*` and `order.**` for `order.paid`. */
function likePatterns(type: string): string[] {
  const segments = type.split('.')
  return segments.flatMap((_, index) => {
    const before = segments.slice(0, index).map((segment) => `${segment}.`)
    const rest = segments.slice(index + 1).map((segment) => `.${segment}`)
    return [`${before.join('')}*${rest.join('')}`, `${before.join('')}**`]
  })
}
