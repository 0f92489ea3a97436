import { canary } from '../../events/event-type.ts'
import { limits } from '../../foundation/limits.ts'
import { describe, invalidOption } from '../../foundation/options.ts'

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function assertSubscriptionName(name: unknown, option = 'name'): asserts name is string {
  if (
    typeof name === 'string' &&
    name.length <= limits.subscriptionNameLength &&
    /^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?$/.test(name) &&
    !name.endsWith('.dead')
  ) {
    if (name !== canary.subscription) return
    throw invalidOption(
      `Expected a \`${option}\` other than \`${name}\`, by which the bus tests itself`,
      option,
    )
  }
  throw invalidOption(
    `Expected \`${option}\` to be 1 to ${limits.subscriptionNameLength} letters, digits, \`.\`, \`_\` or \`-\`, not ending in \`.dead\`, got ${describe(name)}`,
    option,
  )
}
