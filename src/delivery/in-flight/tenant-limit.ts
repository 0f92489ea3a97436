import { createSemaphore, type Semaphore } from '../concurrency/semaphore.ts'
import { releaseDeferredJobs } from '../jobs/deferred-jobs.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import type { FetchSignal } from './jobs-in-flight.ts'

/** So much work of a tenant at its limit is in flight, so that it never waits for the next fetch. */
const lookAheadMs = 1000

/** The shortest and, with few deferred jobs, the longest time that a job is deferred. */
const minDeferMs = 1000
const maxDeferMs = 30_000

/** So many deferred jobs a second are due at most, however many there are. */
const maxReturnsPerSecond = 20

/**
 * Lets a fixed number of handlers of each tenant run at a time. Only as many events as keep a tenant busy wait in this process. The
 * others that were fetched are deferred until about their turn, so that they take neither the memory nor the slots that other
 * tenants' events need.
 */
export interface TenantLimit {
  tryAcquire: (tenantId: string) => boolean
  /** Resolves once a slot of the tenant was taken. */
  acquire: (tenantId: string) => Promise<void>
  release: (tenantId: string) => void
  /** Admits events of a tenant, unless it has enough of them in flight. Returns whether it did. */
  admit: (tenantId: string, eventCount: number) => boolean
  /** An event that was admitted is over. */
  done: (tenantId: string) => void
  /** So many more handlers of a tenant, or fewer, still run after their attempt. While they take all its slots, no event is admitted. */
  outlive: (tenantId: string, count: number) => void
  /** How long events that were not admitted are deferred, in seconds. */
  defer: (tenantId: string, eventCount: number) => number
  /** Whether deferred jobs of a tenant are to be made due early, because it will soon be idle. */
  needsMore: (tenantId: string) => boolean
  /** So many jobs of a tenant were made due. */
  released: (tenantId: string, jobCount: number) => void
}

interface Tenant {
  readonly slots: Semaphore
  /** Events in flight: running and waiting. */
  held: number
  /** Slots that are taken or waited for: while there are any, the semaphore must stay. */
  entered: number
  /** Those taken by handlers that still run after their attempt. */
  outliving: number
  /** When the last deferred job is due, in the time of `performance.now()`. */
  deferredUntil: number
  deferredJobs: number
  isReleasing: boolean
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
      slots: createSemaphore(limit),
      held: 0,
      entered: 0,
      outliving: 0,
      deferredUntil: 0,
      deferredJobs: 0,
      isReleasing: false,
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
    tryAcquire(tenantId) {
      const tenant = of(tenantId)
      const isIn = tenant.slots.tryAcquire()
      if (isIn) tenant.entered += 1
      return isIn
    },
    async acquire(tenantId) {
      const tenant = of(tenantId)
      tenant.entered += 1
      await tenant.slots.acquire()
    },
    release(tenantId) {
      const tenant = of(tenantId)
      tenant.slots.release()
      tenant.entered -= 1
      drop(tenantId, tenant)
    },
    admit(tenantId, eventCount) {
      const tenant = of(tenantId)
      if (tenant.held >= lookAhead() || tenant.outliving >= limit) return false
      tenant.held += eventCount
      return true
    },
    done(tenantId) {
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
      const { isReleasing, deferredJobs, held, outliving } = tenant
      if (isReleasing || deferredJobs === 0 || held >= lookAhead() || outliving >= limit) return false
      tenant.isReleasing = true
      return true
    },
    released(tenantId, jobCount) {
      const tenant = of(tenantId)
      tenant.isReleasing = false
      tenant.deferredJobs = jobCount > 0 ? Math.max(0, tenant.deferredJobs - jobCount) : 0
      if (tenant.deferredJobs === 0) tenant.deferredUntil = 0
      drop(tenantId, tenant)
    },
  }
}

/** Keeps the tenants of a subscription with a limit busy: makes deferred jobs of a tenant due before it is idle. */
export interface TenantAdmission {
  readonly limit: TenantLimit
  /** An event of the tenant that was admitted is over. */
  onEventOver: (tenantId: string) => void
  /** A handler of the tenant still runs after its attempt (1), or has ended (-1). */
  onOverrun: (tenantId: string, change: 1 | -1) => void
}

export function createTenantAdmission(
  context: SubscriptionContext,
  limit: TenantLimit,
  signal: FetchSignal,
): TenantAdmission {
  function refill(tenantId: string): void {
    if (signal.isStopped || !limit.needsMore(tenantId)) return
    releaseDeferredJobs(context, tenantId).then(
      (jobCount) => {
        limit.released(tenantId, jobCount)
        if (jobCount > 0) signal.wake()
      },
      () => limit.released(tenantId, 0),
    )
  }

  return {
    limit,
    onEventOver(tenantId) {
      limit.done(tenantId)
      refill(tenantId)
    },
    onOverrun(tenantId, change) {
      limit.outlive(tenantId, change)
      if (change < 0) refill(tenantId)
    },
  }
}
