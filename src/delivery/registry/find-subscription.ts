import type { Executor } from '../../database/database.ts'
import { ConfigurationError } from '../../foundation/errors.ts'
import { describe } from '../../foundation/options.ts'
import { loadSubscriptions, type RegisteredSubscription } from './registry.ts'

/** The error where a call names a subscription that there is not. */
export function subscriptionNotFound(name: string, hint = ''): ConfigurationError {
  return new ConfigurationError(
    'BUS_SUBSCRIPTION_NOT_FOUND',
    `There is no subscription ${describe(name)} in this database${hint}`,
  )
}

/** The subscription of a name. @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND` */
export async function findSubscription(executor: Executor, name: string): Promise<RegisteredSubscription> {
  return pickSubscription(await loadSubscriptions(executor), name)
}

/** The same, of subscriptions that are loaded. @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND` */
export function pickSubscription<S extends { readonly name: string }>(
  subscriptions: readonly S[],
  name: string,
): S {
  const found = subscriptions.find((subscription) => subscription.name === name)
  if (found === undefined) throw subscriptionNotFound(name)
  return found
}
