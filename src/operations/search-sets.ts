import { createValues, type StatementValues } from '../database/statement-values.ts'
import type { Executor } from '../database/database.ts'
import {
  allOf,
  conditionsOf,
  historyColumns,
  windowCondition,
  type HistoryRow,
  type Window,
} from './event-statements.ts'
import type { CheckedFilter } from './history-filter.ts'

/** So many events an index may return for a part of the log, before it is read in order instead. */
const maxSetCount = 5000

/** So many tenants, or types, are looked up one by one. */
export const maxKeyCount = 5000

/** To find a tenant and look into its part of an index costs about as much as reading so many events in order. */
const tenantWeight = 10

/** The events of a part of the log by correlation, cause or subject. Undefined if no index answers, or they are too many. */
export async function readIndexed(
  executor: Executor,
  filter: CheckedFilter,
  comparedTypes: readonly string[] | undefined,
  parts: { readonly window: Window; readonly partition: Window; readonly wanted: number },
): Promise<{ readonly rows: readonly HistoryRow[]; readonly cost: number } | undefined> {
  const { window, partition, wanted } = parts
  const values = createValues()
  const found = await indexedCondition(executor, filter, partition, values)
  if (found === undefined) return undefined
  const { condition, cost } = found
  const inWindow = windowCondition(window, filter, values)
  const { rows } = await executor.query<HistoryRow & { readonly found_count: string }>(
    `with found as materialized (
       select e.id from bus.events e where ${condition} and ${inWindow} limit ${maxSetCount + 1}
     ), counted as materialized (select count(*) as n from found)
     select c.n as found_count, f.* from counted c
     left join lateral (
       select ${historyColumns} from bus.events e
       where c.n <= ${maxSetCount} and e.id = any (array(select f.id from found f)) and ${inWindow}
         and ${allOf(conditionsOf(filter, comparedTypes, values))}
       order by e.id ${filter.order === 'newest' ? 'desc' : 'asc'} limit ${wanted}
     ) f on true`,
    [...values.values],
  )
  if (Number(rows[0]?.found_count ?? 0) > maxSetCount) return undefined
  return { rows: rows.filter(({ id }) => (id as string | null) !== null), cost }
}

/** Conditions that an index of the log answers without its ids in order. */
async function indexedCondition(
  executor: Executor,
  filter: CheckedFilter,
  partition: Window,
  { value }: StatementValues,
): Promise<{ readonly condition: string; readonly cost: number } | undefined> {
  const { causationId, correlationId, subject, tenantId } = filter
  if (causationId !== undefined) return { condition: `e.causation_id = ${value(causationId)}::uuid`, cost: 0 }
  if (correlationId === undefined && subject === undefined) return undefined
  // Both indexes begin with the tenant.
  const tenants = tenantId === undefined ? await keysIn(executor, 'tenant_id', partition) : [tenantId]
  if (tenants === undefined) return undefined
  const ofTenants = value(tenants)
  const cost = tenantId === undefined ? tenants.length * tenantWeight : 0
  if (correlationId !== undefined)
    return {
      condition: `e.tenant_id = any (${ofTenants}::text[]) and e.correlation_id = ${value(correlationId)}`,
      cost,
    }
  const ofSubject = value(subject)
  const condition = `hashtextextended(e.subject, hashtextextended(e.tenant_id, 0)) = any (array(
      select hashtextextended(${ofSubject}::text, hashtextextended(t.id, 0)) from unnest(${ofTenants}::text[]) as t (id)))
    and e.subject = ${ofSubject}::text and e.tenant_id = any (${ofTenants}::text[])`
  return { condition, cost }
}

/**
 * The tenants, or the types, of a partition of the log: steps from one to the next in the index that begins with them. Undefined if they are
 * too many.
 */
export async function keysIn(
  executor: Executor,
  column: 'tenant_id' | 'type',
  { low, high }: Window,
): Promise<readonly string[] | undefined> {
  const { rows } = await executor.query<{ key: string }>(
    `with recursive found (key) as (
       (select e.${column} from bus.events e where e.id >= $1::uuid and e.id < $2::uuid order by e.${column} limit 1)
       union all
       select (
         select e.${column} from bus.events e where e.${column} > f.key and e.id >= $1::uuid and e.id < $2::uuid order by e.${column} limit 1)
       from found f where f.key is not null
     )
     select f.key from found f where f.key is not null limit ${maxKeyCount + 1}`,
    [low, high],
  )
  return rows.length > maxKeyCount ? undefined : rows.map(({ key }) => key)
}

/** A key, and the event that has used it. */
interface UsedKey {
  readonly kind: KeyKind
  readonly tenantId: string
  readonly id: string
}

export type KeyKind = 'event_id' | 'idempotency_key'

/** The events that have used a business id, or an idempotency key. Undefined if there are too many tenants to look it up for each. */
export async function readKeys(
  executor: Executor,
  kinds: readonly KeyKind[],
  key: string,
  tenantId: string | undefined,
): Promise<readonly UsedKey[] | undefined> {
  const known =
    tenantId === undefined
      ? `recursive tenants (id) as (
           (select k.tenant_id from bus.event_keys k order by k.tenant_id limit 1)
           union all
           select (select k.tenant_id from bus.event_keys k where k.tenant_id > t.id order by k.tenant_id limit 1)
           from tenants t where t.id is not null
         ), known as materialized (select t.id from tenants t where t.id is not null limit ${maxKeyCount + 1})`
      : 'known (id) as materialized (values ($3::text))'
  const { rows } = await executor.query<{
    kind: KeyKind
    event_id: string | null
    tenant_id: string
    tenant_count: string
  }>(
    `with ${known}, counted as materialized (select count(*) as n from known)
     select c.n as tenant_count, k.* from counted c
     left join lateral (
       select w.kind, k.event_id, t.id as tenant_id from unnest($1::text[]) as w (kind) cross join known t
       cross join lateral (
         select k.event_id from bus.event_keys k where k.tenant_id = t.id and k.kind = w.kind and k.key = $2 limit 1) k
       limit ${maxSetCount}
     ) k on true`,
    tenantId === undefined ? [kinds, key] : [kinds, key, tenantId],
  )
  if (Number(rows[0]?.tenant_count ?? 0) > maxKeyCount) return undefined
  return rows.flatMap(({ kind, event_id: id, tenant_id: ofTenant }) =>
    id === null ? [] : { kind, tenantId: ofTenant, id },
  )
}

/** Those of some events that fulfil a filter. */
export async function readListed(
  executor: Executor,
  filter: CheckedFilter,
  comparedTypes: readonly string[] | undefined,
  parts: { readonly ids: readonly string[]; readonly window: Window; readonly wanted: number },
): Promise<readonly HistoryRow[]> {
  if (parts.ids.length === 0) return []
  const values = createValues()
  const { rows } = await executor.query<HistoryRow>(
    `select ${historyColumns} from bus.events e
     where e.id = any (${values.value(parts.ids)}::uuid[]) and ${windowCondition(parts.window, filter, values)}
       and ${allOf(conditionsOf(filter, comparedTypes, values))}
     order by e.id ${filter.order === 'newest' ? 'desc' : 'asc'} limit ${parts.wanted}`,
    [...values.values],
  )
  return rows
}
