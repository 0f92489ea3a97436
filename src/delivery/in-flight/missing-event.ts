import type { ActiveJob } from './active-job.ts'

/**
 * When events that the log does not show are looked for again, in seconds after each time. They were there when they were
 * published; a log that is being changed, or restored, may show them again. After the last time it is taken that they are gone:
 * about four minutes in all.
 */
const missDelaysSeconds = [1, 5, 15, 30, 60, 120] as const

/**
 * Leaves an event that was not found in its job, to be put back with what is left of it: that is no attempt. False when it has been
 * looked for often enough.
 */
export function putOffMissing(job: Pick<ActiveJob, 'claim' | 'delaySeconds' | 'isMissing'>): boolean {
  const delaySeconds = missDelaysSeconds[job.claim.data.misses ?? 0]
  if (delaySeconds === undefined) return false
  job.isMissing = true
  job.delaySeconds = Math.max(job.delaySeconds, delaySeconds)
  return true
}

/** How often the events of a job were looked for in vain, after this time. */
export function missesOf({ claim, isMissing }: Pick<ActiveJob, 'claim' | 'isMissing'>): number {
  return (claim.data.misses ?? 0) + (isMissing ? 1 : 0)
}
