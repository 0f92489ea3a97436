import type { Database } from '../database/database.ts'
import { sumOfBinsSql } from '../delivery/ledger/hourly-rollups.ts'
import { idsOfNameSql } from '../delivery/registry/find-subscription.ts'
import type { CheckedStats } from './stats-options.ts'

/** What was counted, and the bins of the times. */
export interface StatsCounts {
  published: number
  delivered: number
  failed: number
  dead: number
  expired: number
  readonly waits: number[]
  readonly runs: number[]
}

/** The counts of a unit of time, a subscription or a tenant. */
export interface StatsGroup extends Readonly<StatsCounts> {
  readonly at: Date | null
  readonly subscription: string | null
  readonly tenant: string | null
  readonly isTenant: boolean
}

interface CountRow extends Record<string, unknown> {
  readonly at: Date | null
  readonly subscription_id: number | null
  readonly name: string | null
  readonly published: number
  readonly delivered: number
  readonly failed: number
  readonly dead: number
  readonly expired: number
  readonly waits: number[] | null
  readonly runs: number[] | null
}

const sumsOfCounts = `sum(published)::float8 as published, sum(delivered)::float8 as delivered, sum(failed)::float8 as failed,
  sum(dead)::float8 as dead, sum(expired)::float8 as expired`

/**
 * Hours that are over come from their sums, later ones from the minutes. The canary is not counted, so it has no rows.
 */
export async function readSubscriptions(
  database: Pick<Database, 'query'>,
  checked: CheckedStats,
): Promise<readonly StatsGroup[]> {
  const { by, from, to, subscription } = checked
  const isTime = by !== 'subscription'
  const columns = 'published, delivered, failed, dead, expired, wait_bins, run_bins'
  const filter = subscription === undefined ? '' : `and subscription_id = any (${idsOfNameSql('$3')})`
  const hours = `select hour as at, subscription_id, ${columns} from bus.hourly_rollups where hour >= $1 and hour < $2 ${filter} union all`
  const boundary = `greatest($1, coalesce((select max(hour) + interval '1 hour' from bus.hourly_rollups), '-infinity'))`
  const isOfMinutes = by === 'minute'
  const { rows } = await database.query<CountRow>(
    `select c.*, ${isTime ? 'to_timestamp(c.key) as at, null::int as subscription_id, null as name' : 'null::timestamptz as at, c.key::int as subscription_id, coalesce(s.name, x.name) as name'}
     from (
       select ${isTime ? `extract(epoch from date_trunc('${by}', r.at, 'UTC'))::bigint` : 'r.subscription_id::bigint'} as key, ${sumsOfCounts},
         ${sumOfBinsSql('r.wait_bins')}::float8[] as waits, ${sumOfBinsSql('r.run_bins')}::float8[] as runs
       from (
         ${isOfMinutes ? '' : hours}
         select minute, subscription_id, published, delivered, failed, dead, expired, ${isOfMinutes ? 'wait_bins, run_bins' : 'wait_bins::bigint[], run_bins::bigint[]'}
         from bus.rollups where minute >= ${isOfMinutes ? '$1' : boundary} and minute < $2 ${filter}
       ) r (at, subscription_id, ${columns})
       group by 1
     ) c
     ${isTime ? '' : 'left join bus.subscriptions s on s.id = c.key left join bus.removed_subscriptions x on x.id = c.key'}
     order by c.key`,
    subscription === undefined ? [from, to] : [from, to, subscription],
  )
  return rows.map(({ at: time, subscription_id, name, waits, runs, ...counts }) => ({
    at: time,
    // The relay's row says what was published. A row of the registry that was deleted by hand leaves no name.
    subscription: subscription_id === null || subscription_id === 0 ? null : (name ?? `${subscription_id}`),
    tenant: null,
    isTenant: false,
    ...pick(counts),
    waits: waits ?? [],
    runs: runs ?? [],
  }))
}

/** All tenants are added up in the database; only the largest of them are read. */
export async function readTenants(
  database: Pick<Database, 'query'>,
  checked: CheckedStats,
): Promise<readonly StatsGroup[]> {
  const { by, from, to, tenantId, limit } = checked
  const isTime = by !== 'tenant'
  const key = isTime ? `date_trunc('${by}', r.hour, 'UTC')` : 'null::timestamptz'
  const { rows } = await database.query<CountRow & { readonly tenant: string | null; readonly rank: number }>(
    `with found as materialized (
       select ${key} as at, ${isTime ? 'null::text' : 'r.tenant_id'} as tenant, ${sumsOfCounts}
       from bus.tenant_rollups r where hour >= $1 and hour < $2 ${tenantId === undefined ? '' : 'and tenant_id = $3'}
       group by 1, 2
     ), ranked as (
       select f.*, row_number() over (order by ${isTime ? 'f.at' : 'f.published + f.delivered + f.failed desc, f.tenant'})::int as rank from found f
     )
     select r.at, r.tenant, r.published, r.delivered, r.failed, r.dead, r.expired, r.rank from ranked r where ${isTime ? 'true' : `r.rank <= ${limit + 1}`}
     union all
     select null, null, ${sumsOfCounts}, null from ranked r where ${isTime ? 'false' : `r.rank > ${limit + 1}`} having count(*) > 0
     order by rank`,
    tenantId === undefined ? [from, to] : [from, to, tenantId],
  )
  return rows.map((row) => ({
    at: row.at,
    subscription: null,
    tenant: row.tenant,
    isTenant: row.tenant !== null,
    ...pick(row),
    waits: [],
    runs: [],
  }))
}

function pick({
  published,
  delivered,
  failed,
  dead,
  expired,
}: Omit<StatsCounts, 'waits' | 'runs'>): Omit<StatsCounts, 'waits' | 'runs'> {
  return { published, delivered, failed, dead, expired }
}
