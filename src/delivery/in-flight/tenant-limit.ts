import type { Database } from '../../database/database.ts'
import { isKey, type ActiveJob } from './active-job.ts'
import { createGate, type Gate } from '../concurrency/semaphore.ts'

/** Of the work of a tenant at its limit, so much is held in hand, so that it never waits for the next fetch. */
const lookAheadMs = 1000

/** The shortest and, with few jobs put off, the longest time that a job is put off. */
const minDeferMs = 1000
const maxDeferMs = 30_000

/** Of jobs that are put off, so many a second come back at most, however many there are. */
const maxReturnsPerSecond = 20

/**
 * Lets a fixed number of handlers of each tenant run at a time. Of the events that wait for a tenant's place only as many
 * are held as keep the tenant busy; what else is fetched of it is put off until about its turn, so that it takes up neither the
 * memory nor the slots that other tenants' events need.
 */
export interface TenantLimit {
  tryEnter: (tenantId: string) => boolean
  /** Resolves once a place was taken. */
  enter: (tenantId: string) => Promise<void>
  leave: (tenantId: string) => void
  /** Whether further events of a tenant are to be held; if so, they are from now on. */
  admit: (tenantId: string, eventCount: number) => boolean
  /** An event that was admitted is out of hand. */
  forget: (tenantId: string) => void
  /** So many more handlers of a tenant, or fewer, run on after their attempt. While they take all its places, none is admitted. */
  outlive: (tenantId: string, count: number) => void
  /** How long events that were not admitted are put off, in seconds. */
  defer: (tenantId: string, eventCount: number) => number
  /** Whether jobs of a tenant are to be called back early, because it will soon have nothing in hand. */
  needsMore: (tenantId: string) => boolean
  /** So many jobs of a tenant were called back. */
  calledBack: (tenantId: string, jobCount: number) => void
}

interface Tenant {
  readonly gate: Gate
  /** In hand: running and waiting. */
  held: number
  /** Places that are taken or waited for: while there are any, the gate must stay. */
  entered: number
  /** Of those, taken by handlers that run on after their attempt. */
  outliving: number
  /** When the last job that was put off comes back, in the time of `performance.now()`. */
  deferredUntil: number
  deferredJobs: number
  calling: boolean
}

/** @param averageMs - how long handlers take */
export function createTenantLimit(
  tenantConcurrency: number | undefined,
  averageMs: () => number,
): TenantLimit | undefined {
  if (tenantConcurrency === undefined) return undefined
  const limit = tenantConcurrency
  const tenants = new Map<string, Tenant>()

  function of(tenantId: string): Tenant {
    const known = tenants.get(tenantId)
    if (known !== undefined) return known
    const tenant = {
      gate: createGate(limit),
      held: 0,
      entered: 0,
      outliving: 0,
      deferredUntil: 0,
      deferredJobs: 0,
      calling: false,
    }
    tenants.set(tenantId, tenant)
    return tenant
  }

  function drop(tenantId: string, { held, entered, outliving, deferredJobs }: Tenant): void {
    if (held === 0 && entered === 0 && outliving === 0 && deferredJobs === 0) tenants.delete(tenantId)
  }

  const perMs = (): number => limit / Math.max(1, averageMs())
  const lookAhead = (): number => Math.max(2 * limit, Math.ceil(lookAheadMs * perMs()))

  return {
    tryEnter(tenantId) {
      const tenant = of(tenantId)
      const isIn = tenant.gate.tryEnter()
      if (isIn) tenant.entered += 1
      return isIn
    },
    async enter(tenantId) {
      const tenant = of(tenantId)
      tenant.entered += 1
      await tenant.gate.enter()
    },
    leave(tenantId) {
      const tenant = of(tenantId)
      tenant.gate.leave()
      tenant.entered -= 1
      drop(tenantId, tenant)
    },
    admit(tenantId, eventCount) {
      const tenant = of(tenantId)
      if (tenant.held >= lookAhead() || tenant.outliving >= limit) return false
      tenant.held += eventCount
      return true
    },
    forget(tenantId) {
      const tenant = of(tenantId)
      tenant.held -= 1
      drop(tenantId, tenant)
    },
    outlive(tenantId, count) {
      const tenant = of(tenantId)
      tenant.outliving += count
      drop(tenantId, tenant)
    },
    defer(tenantId, eventCount) {
      const tenant = of(tenantId)
      const now = performance.now()
      tenant.deferredJobs += 1
      const longest = Math.max(maxDeferMs, (tenant.deferredJobs / maxReturnsPerSecond) * 1000)
      const from = Math.max(tenant.deferredUntil, now + tenant.held / perMs())
      tenant.deferredUntil = Math.min(now + longest, from + eventCount / perMs())
      return Math.max(minDeferMs, tenant.deferredUntil - now) / 1000
    },
    needsMore(tenantId) {
      const tenant = tenants.get(tenantId)
      if (tenant === undefined) return false
      const { calling, deferredJobs, held, outliving } = tenant
      if (calling || deferredJobs === 0 || held >= lookAhead() || outliving >= limit) return false
      tenant.calling = true
      return true
    },
    calledBack(tenantId, jobCount) {
      const tenant = of(tenantId)
      tenant.calling = false
      tenant.deferredJobs = jobCount > 0 ? Math.max(0, tenant.deferredJobs - jobCount) : 0
      if (tenant.deferredJobs === 0) tenant.deferredUntil = 0
      drop(tenantId, tenant)
    },
  }
}

/** Divides what is left of a job: what is to be held, and what goes back for later, with a place for the whole of it. */
export function admitEvents(limit: TenantLimit, job: ActiveJob): readonly string[] {
  // Those of a key have one tenant, also where the log does not show one of them: they stay in their order.
  const ofKey = isKey(job)
    ? [...job.left].map((id) => job.events.tenantOf(id)).find((id) => id !== undefined)
    : undefined
  const byTenant = Map.groupBy(job.left, (id) => job.events.tenantOf(id) ?? ofKey)
  const admitted: string[] = []
  const tenants = new Set<string>()
  for (const [tenantId, ids] of byTenant) {
    if (tenantId !== undefined && !limit.admit(tenantId, ids.length)) {
      tenants.add(tenantId)
      job.delaySeconds = Math.max(job.delaySeconds, limit.defer(tenantId, ids.length))
      continue
    }
    admitted.push(...ids)
    if (tenantId !== undefined) for (const id of ids) job.held.set(id, tenantId)
  }
  // Under the key of its line it is found when its tenant has nothing to do.
  if (tenants.size === 1) job.lineKey = `=${[...tenants][0]}`
  return admitted
}

/** Calls jobs of a tenant back that were put off, when it will soon have nothing in hand. */
export function refill(
  limit: TenantLimit,
  database: Database,
  queue: string,
  tenantId: string,
  onReady: () => void,
): void {
  if (!limit.needsMore(tenantId)) return
  callBack(database, queue, tenantId).then(
    (jobCount) => {
      limit.calledBack(tenantId, jobCount)
      if (jobCount > 0) onReady()
    },
    () => limit.calledBack(tenantId, 0),
  )
}

/** Makes jobs of a tenant ready that were put off, the first ones, up to a batch. Gives their number. */
async function callBack(database: Database, queue: string, tenantId: string): Promise<number> {
  const { rows } = await database.query(
    `update ${database.bossSchema}.job set start_after = now()
     where name = $1 and state = 'created' and id in (
       select id from (
         select id, sum(jsonb_array_length(data->'eventIds')) over (order by start_after, id)
           - jsonb_array_length(data->'eventIds') as before
         from (
           select id, data, start_after from ${database.bossSchema}.job
           where name = $1 and singleton_key = $2 and state = 'created' and start_after > now()
           order by start_after, id limit 50
         ) first
       ) counted where before < 50)
     returning 1`,
    [queue, `=${tenantId}`],
  )
  return rows.length
}
