import type { JobWithMetadata } from 'pg-boss'
import type { HandlerMode } from '../in-flight/handler-mode.ts'
import type { JobRun } from '../in-flight/job-run.ts'
import { markIsolated } from '../jobs/mark-isolated.ts'
import { type Quarantine, isSuspect } from '../in-flight/quarantine.ts'
import type { WorkerParts } from '../in-flight/worker-parts.ts'
import type { JobData } from '../jobs/job.ts'
import { dropIfCancelled } from '../ledger/replay-outcomes.ts'
import { recordRedriven } from '../ledger/failures.ts'
import { readReceipts } from '../ledger/receipts.ts'
import { isRedriven, wasWorkerLost } from '../jobs/job-claim.ts'
import type { TenantLimit } from '../in-flight/tenant-limit.ts'
import { tenantFlowKey } from '../jobs/deferred-jobs.ts'
import { eventNotCovered } from '../attempts/outcome.ts'

/** Runs claimed jobs of one subscription, each from its claim to its settlement. */
export interface JobRunner {
  readonly run: (job: JobRun, fetched: JobWithMetadata<JobData>) => Promise<void>
}

export function createJobRunner(worker: WorkerParts, mode: HandlerMode, quarantine: Quarantine): JobRunner {
  const { context, settlements, outcomes, signal, metrics, breaker, tenants } = worker
  const isExactlyOnce = context.subscription.mode === 'exactly-once'

  async function run(job: JobRun, fetched: JobWithMetadata<JobData>): Promise<void> {
    const { claim } = job
    if (claim.retryCount > 0) await mode.prepare(claim)
    if (wasWorkerLost(fetched) || (claim.data.eventIds.length > 1 && claim.retryCount > 0))
      return quarantine.recover(async () => recover(job))
    if (!isSuspect(claim.data)) return deliver(job, isRedriven(fetched))
    return quarantine.runIsolated(async () => {
      if (!job.mayStart) return job.isDone ? undefined : job.requeue()
      const isOurs = await settlements.retryUntilDone(async () => markIsolated(context, claim))
      if (isOurs) await deliver(job, isRedriven(fetched))
      else job.onClaimLost()
    })
  }

  /** The worker before was lost: its events get jobs of their own. */
  async function recover(job: JobRun): Promise<void> {
    await settlements.retryUntilDone(async () => outcomes.recover(job.claim))
    job.release()
    signal.wake()
  }

  /** Runs the events of a job that may be run, and settles the job. */
  async function deliver(job: JobRun, isFromDeadLetters: boolean): Promise<void> {
    if (await isDropped(job)) return job.settle()
    if (isFromDeadLetters) await noteRedriven(job)
    await readEvents(job, isFromDeadLetters)
    await context.database.faultPoint?.('worker.loaded')
    const runnable = await findRunnable(worker, job)
    let failed = job.isProbe && (await probe(job, runnable))
    if (!failed && runnable.size > 0 && job.mayStart) failed = await mode.run(job, admit(job, runnable))
    if (!failed && !job.isDone && job.isUncovered) failed = await declineUncovered(worker, job)
    await job.requeueing
    if (job.isDone) return
    // Waits for the write: if the next suspect ended the process before it, this event would be blamed.
    await (job.remaining.size > 0 && !failed ? job.requeue() : job.settle())
  }

  /** Whether a job is of a replay that was cancelled: its events are over, without a receipt. */
  async function isDropped(job: JobRun): Promise<boolean> {
    const { replay } = job.claim.data
    if (replay === undefined) return false
    const isCancelled = await settlements.retryUntilDone(async () =>
      dropIfCancelled(context.database, replay, [...job.remaining]),
    )
    if (!isCancelled) return false
    for (const eventId of [...job.remaining]) job.finish(eventId)
    if (job.isProbe) await breaker.endProbe(undefined, undefined)
    job.isProbe = false
    return true
  }

  /** So that what is being tried again is not listed as a dead letter meanwhile. */
  async function noteRedriven({ claim, ledgerId }: JobRun): Promise<void> {
    const [eventId = ''] = claim.data.eventIds
    await settlements.retryUntilDone(async () =>
      recordRedriven(context.database, ledgerId, eventId, claim.id),
    )
  }

  /** Reads the events of a job, and which of them are delivered already. */
  async function readEvents(job: JobRun, isFromDeadLetters: boolean): Promise<void> {
    const mayBeDelivered = isExactlyOnce || job.attempt > 1 || isFromDeadLetters
    const [, delivered] = await Promise.all([
      job.events.refresh(job.remaining),
      mayBeDelivered
        ? settlements.retryUntilDone(async () =>
            readReceipts(context.database, job.ledgerId, job.claim.data.eventIds),
          )
        : new Set<string>(),
    ])
    for (const eventId of delivered) job.finish(eventId)
  }

  function admit(job: JobRun, runnable: ReadonlySet<string>): Iterable<string> {
    if (tenants === undefined) return runnable
    const admitted = admitEvents(tenants.limit, job).filter((id) => runnable.has(id))
    job.markWaitingForTenant(job.remaining.size - admitted.length)
    return admitted
  }

  /** Tries the first event of a job while the circuit breaker is open. */
  async function probe(job: JobRun, runnable: ReadonlySet<string>): Promise<boolean> {
    const before = metrics.deliveredCount
    const failed = runnable.size > 0 && (await mode.run(job, [...runnable].slice(0, 1)))
    job.isProbe = false
    const isDelivered = metrics.deliveredCount > before
    const { uncountedFailure } = job
    await breaker.endProbe(
      isDelivered || (uncountedFailure === undefined ? undefined : false),
      uncountedFailure?.thrown,
    )
    return failed
  }

  return { run }
}

/** Divides what is left of a job: returns the events to be run now, and notes on the job how the others are requeued for later. */
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
  if (tenantId !== undefined && deferred.length === 1) job.flowKey = tenantFlowKey(tenantId)
  return admitted
}

/**
 * Finds the events of a job that only other code of the subscription covers. Returns the others; of a key those up to the first that is
 * not covered.
 */
async function findRunnable(
  { settlements, coverage }: WorkerParts,
  job: JobRun,
): Promise<ReadonlySet<string>> {
  job.uncovered = await settlements.retryUntilDone(async () =>
    coverage.find(job.claim.data, job.remaining, job.events.loaded),
  )
  if (job.uncovered.size === 0) return job.remaining
  const left = [...job.remaining]
  const isCovered = (id: string): boolean => !job.uncovered.has(id)
  const firstUncovered = left.findIndex((id) => !isCovered(id))
  return new Set(job.isOfKey ? left.slice(0, firstUncovered) : left.filter(isCovered))
}

/**
 * Decides what happens to events that are not covered here, when nothing else is left of a job: they are requeued for other code, or fail
 * where no code has them any more. Resolves to whether one of a key has failed.
 */
async function declineUncovered({ settlements, coverage }: WorkerParts, job: JobRun): Promise<boolean> {
  const uncovered = job.isOfKey ? [...job.remaining].slice(0, 1) : [...job.remaining]
  const { isCoveredElsewhere, unwanted } = await settlements.retryUntilDone(async () =>
    coverage.findOwners(uncovered, job.events.loaded),
  )
  for (const eventId of unwanted) {
    const outcome = eventNotCovered(eventId, job.attempt)
    job.record(outcome)
    job.finish(eventId, outcome)
  }
  job.declined = { by: coverage.decline(job.claim.data), isLast: !isCoveredElsewhere }
  return job.isOfKey && unwanted.length > 0
}
