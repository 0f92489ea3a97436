import type { JobRun } from '../in-flight/job-run.ts'
import type { TenantLimit } from '../in-flight/tenant-limit.ts'
import { deferredKey } from '../jobs/deferred-jobs.ts'

/** Divides what is left of a job: returns the events to be run now, and notes on the job how the others go back for later. */
export function admitEvents(limit: TenantLimit, job: JobRun): readonly string[] {
  // Those of a key have one tenant, also where the log does not show one of them: they stay in their order.
  const ofKey = job.isOfKey
    ? [...job.remaining].map((id) => job.events.tenantOf(id)).find((id) => id !== undefined)
    : undefined
  const byTenant = Map.groupBy(job.remaining, (id) => job.events.tenantOf(id) ?? ofKey)
  const admitted: string[] = []
  const deferred: string[] = []
  for (const [tenantId, ids] of byTenant) {
    if (tenantId !== undefined && !limit.admit(tenantId, ids.length)) {
      deferred.push(tenantId)
      job.delaySeconds = Math.max(job.delaySeconds, limit.defer(tenantId, ids.length))
      continue
    }
    admitted.push(...ids)
    if (tenantId !== undefined) for (const id of ids) job.admittedTenants.set(id, tenantId)
  }
  // Under this key the job is found when its tenant is about to be idle.
  const [tenantId] = deferred
  if (tenantId !== undefined && deferred.length === 1) job.fairnessKey = deferredKey(tenantId)
  return admitted
}
