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

/**
 * Refuses the name of a subscription that there has never been, where a filter names it: a misspelt name would be answered by nothing. One that
 * was removed has been. For filters that have found nothing, so that the others need no statement more.
 *
 * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`
 */
export async function refuseUnknownSubscription(
  executor: Pick<Executor, 'query'>,
  name: string | null | undefined,
): Promise<void> {
  if (name === undefined || name === null) return
  const { rows } = await executor.query<{ is_known: boolean; new_name: string | null }>(
    `select exists (select from bus.subscriptions s where s.name = $1) or exists (select from bus.removed_subscriptions r where r.name = $1) as is_known,
       (select a.change ->> 'to' from bus.audit a where a.subscription = $1 and a.action = 'subscriptions.rename' order by a.id desc limit 1) as new_name`,
    [name],
  )
  const [found] = rows
  if (found?.is_known === true) return
  const newName = found?.new_name ?? undefined
  throw subscriptionNotFound(name, newName === undefined ? '' : `: it was renamed to ${describe(newName)}`)
}

/**
 * The same in the scope of a tenant, who does not see what was removed.
 *
 * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND`
 */
export async function refuseUnknownToTenant(
  executor: Pick<Executor, 'query'>,
  name: string | undefined,
): Promise<void> {
  if (name === undefined) return
  const { rows } = await executor.query<{ ids: readonly number[] }>(
    'select bus.subscription_ids($1) as ids',
    [name],
  )
  if (rows[0]?.ids.length === 0) throw subscriptionNotFound(name)
}

/** In SQL: the ids that a name stands for, of the subscription that has it now, or of those that had it when they were removed. */
export function idsOfNameSql(name: string): string {
  return `(select coalesce(
    (select array[s.id] from bus.subscriptions s where s.name = ${name}),
    array(select r.id from bus.removed_subscriptions r where r.name = ${name}))::int[])::int[]`
}
