import { attemptStarter } from '../attempts/attempt.ts'
import { createHandlerMetrics } from '../attempts/handler-metrics.ts'
import { createOverruns } from '../attempts/overruns.ts'
import { createHandlerSlots } from '../concurrency/handler-slots.ts'
import { createPauseAndBreaker } from '../flow-control/pause-and-breaker.ts'
import { createCapacity } from '../in-flight/capacity.ts'
import { createFetchSignal } from '../in-flight/fetch-signal.ts'
import { createHeartbeat } from '../in-flight/heartbeat.ts'
import type { JobRun } from '../in-flight/job-run.ts'
import { createJobsInFlight, type JobsInFlight } from '../in-flight/jobs-in-flight.ts'
import { createTenantAdmission } from '../in-flight/tenant-admission.ts'
import { createTenantLimit } from '../in-flight/tenant-limit.ts'
import type { WorkerState } from '../in-flight/worker-state.ts'
import { createOutcomeWriter } from '../settlement/outcome-writer.ts'
import { createSettlementQueue } from '../settlement/settlement-queue.ts'
import type { Settlement } from '../settlement/settlement.ts'
import { slowHandlerMs } from './fetcher.ts'
import type { WorkerParts } from './worker-parts.ts'

/** Keys of an ordered subscription that are worked on at a time, while handlers are fast. */
const maxKeysInFlight = 64

/** Makes the parts of a worker, each from those before it. */
export function createWorkerState(parts: WorkerParts): {
  readonly state: WorkerState
  readonly jobs: JobsInFlight<JobRun>
} {
  const { context, catalogue, events, publishing, coverage, requestPoll } = parts
  const { subscription, logger } = context
  const signal = createFetchSignal(context)
  const slots = createHandlerSlots(subscription.concurrency, signal.capacityFreed)
  const metrics = createHandlerMetrics()
  const limit = createTenantLimit(subscription.tenantConcurrency, () => metrics.averageMs)
  const tenants = limit && createTenantAdmission(context, limit, signal)
  const overruns = createOverruns(subscription, logger, (tenantId, change) =>
    tenants?.onOverrun(tenantId, change),
  )
  const jobs = createJobsInFlight<JobRun>(slotCount, slots)
  const breaker = createPauseAndBreaker(context, parts.state, signal.wake)
  const outcomes = createOutcomeWriter(context)
  const settlements = createSettlementQueue(write, logger)

  /** With fast handlers, keys find their next job here; with slow ones, other processes get their share. */
  function slotCount(): number {
    const { concurrency, ordered } = subscription
    if (overruns.count >= concurrency) return 0
    const isFast = metrics.handledCount > 0 && metrics.averageMs < slowHandlerMs
    return ordered === true && isFast ? Math.max(concurrency, maxKeysInFlight) : concurrency
  }

  async function write(batch: readonly Settlement[]): Promise<readonly Settlement[]> {
    const { readyCount, postponed } = await outcomes.write(batch)
    if (readyCount > 0) await signal.jobsReady()
    if (batch.some((settlement) => settlement.outcomes.some(({ delivered }) => !delivered))) requestPoll()
    return postponed
  }

  const state: WorkerState = {
    ...{ context, events, coverage, slots, tenants, jobs, breaker, signal, outcomes, settlements },
    ...{ metrics, overruns, requestPoll },
    startAttempt: attemptStarter(subscription, catalogue, logger, publishing),
    capacity: createCapacity(jobs, slots, breaker, signal),
    heartbeat: createHeartbeat(context, jobs),
  }
  return { state, jobs }
}
