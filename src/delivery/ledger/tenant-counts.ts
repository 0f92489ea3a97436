import type { Database } from '../../database/database.ts'

/** What is counted of a tenant. */
type TenantCount = 'published' | 'delivered' | 'failed' | 'dead' | 'expired'

/**
 * The most tenants that one write names: those with the most events since the last write. The others are counted together, as the
 * tenant ''. So a process with a million tenants writes no more than one with a thousand.
 */
const maxTenants = 1000

interface Counts {
  published: number
  delivered: number
  failed: number
  dead: number
  expired: number
}

/**
 * Counts what this process does by tenant, and adds it to the rows of the hour in `bus.tenant_rollups`, which all processes share. These
 * are statistics: what a failed write leaves out is lost.
 */
export interface TenantCounts {
  add: (tenantId: string | undefined, what: TenantCount, count?: number) => void
  /** Writes what was counted since the last call. */
  flush: () => Promise<void>
}

export function createTenantCounts(database: Pick<Database, 'query'>, now: () => number): TenantCounts {
  let counts = new Map<string, Counts>()
  /** The hour of the first event since the last write. */
  let hour = 0

  return {
    add(tenantId = '', what, count = 1) {
      let ofTenant = counts.get(tenantId)
      if (ofTenant === undefined) {
        if (counts.size === 0) hour = Math.floor(now() / 3_600_000)
        counts.set(tenantId, (ofTenant = noCounts()))
      }
      ofTenant[what] += count
    },
    async flush() {
      const counted = counts
      if (counted.size === 0) return
      counts = new Map()
      // In the order of tenants, so that two processes wait for each other and never deadlock.
      await database.query(
        `insert into bus.tenant_rollups as t (hour, tenant_id, published, delivered, failed, dead, expired)
         select to_timestamp($2::float8), r."tenantId", r.published, r.delivered, r.failed, r.dead, r.expired
         from jsonb_to_recordset($1::jsonb) as r ("tenantId" text, published int, delivered int, failed int, dead int, expired int)
         order by r."tenantId"
         on conflict (hour, tenant_id) do update set published = t.published + excluded.published, delivered = t.delivered + excluded.delivered,
           failed = t.failed + excluded.failed, dead = t.dead + excluded.dead, expired = t.expired + excluded.expired`,
        [JSON.stringify(largest(counted)), hour * 3600],
      )
    },
  }
}

function noCounts(): Counts {
  return { published: 0, delivered: 0, failed: 0, dead: 0, expired: 0 }
}

/** The largest tenants, and the sum of the others. */
function largest(counted: ReadonlyMap<string, Counts>): readonly (Counts & { readonly tenantId: string })[] {
  const all = [...counted].map(([tenantId, counts]) => ({ tenantId, ...counts }))
  if (all.length <= maxTenants) return all
  const size = (counts: Counts): number => counts.published + counts.delivered + counts.failed
  const named = all.filter(({ tenantId }) => tenantId !== '').toSorted((a, b) => size(b) - size(a))
  const others = { tenantId: '', ...(counted.get('') ?? noCounts()) }
  for (const counts of named.slice(maxTenants - 1)) {
    others.published += counts.published
    others.delivered += counts.delivered
    others.failed += counts.failed
    others.dead += counts.dead
    others.expired += counts.expired
  }
  return [...named.slice(0, maxTenants - 1), others]
}
