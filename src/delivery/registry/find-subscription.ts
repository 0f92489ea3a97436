import type { Executor } from '../../database/database.ts'
import { ConfigurationError } from '../../foundation/errors.ts'
import { describe } from '../../foundation/options.ts'
import { loadSubscriptions, type RegisteredSubscription } from './registry.ts'

/** The error for a name that no subscription has, for those who may not know what it was: {@link missingSubscription} says more. */
export function subscriptionNotFound(name: string, hint = ''): ConfigurationError {
  return new ConfigurationError(
    'BUS_SUBSCRIPTION_NOT_FOUND',
    `There is no subscription ${describe(name)} in this database${hint}`,
  )
}

interface Past extends Record<string, unknown> {
  readonly new_name: string | null
  readonly renamed_at: Date | null
  readonly removed_at: Date | null
  readonly removed_by: string | null
  readonly operation_id: string | null
  readonly is_under_way: boolean | null
}

/** So many renames of one subscription are followed. */
const maxRenames = 20

/**
 * The error where a call names a subscription that there is not. It says what became of it: its new name, or that it was removed or is being
 * removed, whichever was later. One statement, by the indexes on names; of operations there are few.
 */
export async function missingSubscription(
  executor: Pick<Executor, 'query'>,
  name: string,
): Promise<ConfigurationError> {
  const { rows } = await executor
    .query<Past>(
      `with recursive renames as (
         select $1::text as name, null::timestamptz as at, 0 as n
         union all
         select a.new_name, a.at, r.n + 1 from renames r cross join lateral (
           select a.change ->> 'to' as new_name, a.at from bus.audit a
           where a.subscription = r.name and a.action = 'subscriptions.rename' order by a.id desc limit 1
         ) a
         where r.n < ${maxRenames} and (r.n = 0 or not exists (select from bus.subscriptions s where s.name = r.name))
       )
       select (select r.name from renames r where r.n > 0 order by r.n desc limit 1) as new_name, (select r.at from renames r where r.n = 1) as renamed_at,
         g.removed_at, g.removed_by, o.id as operation_id, o.state not in ('done', 'cancelled') as is_under_way
       from (select) x
       left join lateral (
         select r.id, r.removed_at, r.removed_by from bus.removed_subscriptions r where r.name = $1 order by r.removed_at desc limit 1) g on true
       left join lateral (
         select o.id, o.state from bus.operations o where o.kind = 'remove' and o.subscription_ids = array[g.id] order by o.created_at desc limit 1) o on true`,
      [name],
    )
    // The role may not read it, or there is no time: the name is not there in any case.
    .catch((): { readonly rows: Past[] } => ({ rows: [] }))
  return subscriptionNotFound(name, rows[0] === undefined ? '' : pastOf(rows[0]))
}

function pastOf({ new_name, renamed_at, removed_at, removed_by, operation_id, is_under_way }: Past): string {
  if (new_name !== null && (removed_at === null || (renamed_at !== null && renamed_at > removed_at)))
    return `: it was renamed to ${describe(new_name)}`
  if (removed_at === null) return ''
  const by = `${removed_by === null ? '' : ` by ${describe(removed_by)}`} at ${removed_at.toISOString()}`
  return is_under_way === true
    ? `: it was removed${by}, and the operation ${operation_id} deals with what is left`
    : `: it was removed${by}`
}

/** The subscription of a name. @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND` */
export async function findSubscription(executor: Executor, name: string): Promise<RegisteredSubscription> {
  return pickSubscription(executor, await loadSubscriptions(executor), name)
}

/** The same, of subscriptions that are loaded. @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_FOUND` */
export async function pickSubscription<S extends { readonly name: string }>(
  executor: Executor,
  subscriptions: readonly S[],
  name: string,
): Promise<S> {
  const found = subscriptions.find((subscription) => subscription.name === name)
  if (found === undefined) throw await missingSubscription(executor, name)
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
  const { rows } = await executor.query<{ is_known: boolean }>(
    'select exists (select from bus.subscriptions s where s.name = $1) or exists (select from bus.removed_subscriptions r where r.name = $1) as is_known',
    [name],
  )
  if (rows[0]?.is_known !== true) throw await missingSubscription(executor, name)
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
