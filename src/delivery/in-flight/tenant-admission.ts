import { releaseDeferredJobs } from '../jobs/deferred-jobs.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import type { FetchSignal } from './fetch-signal.ts'
import type { TenantLimit } from './tenant-limit.ts'

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
