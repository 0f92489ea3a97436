import type { Overrun } from '../attempts/attempt.ts'
import type { JobRun } from '../in-flight/job-run.ts'
import type { WorkerParts } from '../in-flight/worker-parts.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import type { HandlerMode } from '../in-flight/handler-mode.ts'
import type { HandlerConnections } from './handler-connections.ts'
import { JobInTransactions } from './job-in-transactions.ts'
import { runEvent } from './run-event.ts'
import { TenantSlots, type TakenEvent } from './tenant-slots.ts'
import { createTransactionEnd } from './transaction-end.ts'
import { TransactionRun } from './transaction-run.ts'

/** While events of a job wait, another transaction is begun beside the others this often, up to the concurrency. */
const spreadIntervalMs = 100

/** Beyond the time a handler may take, before the server ends a transaction that it hears nothing of. */
const idleMarginSeconds = 10

/**
 * Runs the events of jobs in transactions that also hold their receipts and the jobs' completion: docs/adr/0006. One transaction
 * carries several events of a job, one after the other, each behind a savepoint. A job whose handlers are slow is spread over several
 * concurrent transactions. The events of a key have one transaction after the other: docs/adr/0030.
 */
export function createExactlyOnce(worker: WorkerParts, connections: HandlerConnections): HandlerMode {
  const { context, slots, settlements, heartbeat, metrics } = worker
  const { subscription } = context
  const limit = worker.tenants?.limit
  const { permits } = connections
  const { settle, abandon, endTransactions } = createTransactionEnd(worker, connections)

  async function run(job: JobRun, eventIds: Iterable<string>): Promise<boolean> {
    const work = new JobInTransactions(job, eventIds)
    if (job.isOfKey) await runInOrder(work)
    else await runConcurrently(work)
    // Otherwise what is left of it is settled outside its transactions.
    if (work.isCompleted) job.release()
    return job.hasFailed
  }

  /** Runs events of a key, up to the first that is not over. Between two transactions the slot goes to another job that waits for it. */
  async function runInOrder(work: JobInTransactions): Promise<void> {
    const { job } = work
    const slot = slots.of[job.kind]
    while (work.mayStart) {
      // After a long pause of this process another worker may have the key.
      if (performance.now() - job.confirmedAt > job.heartbeatSeconds * 1000) {
        await settlements.retryUntilDone(heartbeat.touch)
        if (!work.mayStart) return
      }
      const { failed } = work
      if (failed !== undefined && failed.eventId === work.next) {
        // What comes before it is delivered. It is written as for any first event of a job.
        job.record(failed)
        job.finish(failed.eventId, failed)
        return
      }
      if (!slot.tryAcquire()) await slot.acquire()
      let overrun: Overrun | undefined
      try {
        overrun = await runTransaction(work)
      } finally {
        if (overrun === undefined) slot.release()
        else void overrun.ended.then(() => slot.release())
      }
      if (overrun !== undefined) await untilKeyIsFree(job, overrun)
    }
  }

  /** No event of a key starts beside a handler of it: the job stays in flight, and its claim current, until the handler has ended. */
  async function untilKeyIsFree(job: JobRun, { ended }: Overrun): Promise<void> {
    if (job.isDone) return
    const name = 'a handler that still runs'
    job.running.set(name, { abort: () => {} })
    await ended
    await job.marking
    job.running.delete(name)
    job.overrun = undefined
  }

  /** Runs events in no order, in several concurrent transactions where handlers are slow. */
  async function runConcurrently(work: JobInTransactions): Promise<void> {
    const slot = slots.of[work.job.kind]
    const series = new Set<Promise<void>>()
    /** Begins a series of transactions, for which a slot was taken. */
    const addSeries = (): void => {
      const running = runSeries(work).then(
        (overrun) => {
          if (overrun === undefined) slot.release()
          else void overrun.ended.then(() => slot.release())
        },
        (error: unknown) => {
          slot.release()
          throw error
        },
      )
      // It is awaited below; until then a rejection is not unhandled.
      running.catch(() => {})
      series.add(running)
    }
    if (!slot.tryAcquire()) await slot.acquire()
    addSeries()
    // As many at once as are known to be needed.
    for (let count = 2; count <= seriesFor(work.pending.length) && slot.tryAcquire(); count += 1) addSeries()
    const spread = setInterval(() => {
      if (work.waitingForTenantCount === 0 && work.mayStartShared && slot.tryAcquire()) addSeries()
    }, spreadIntervalMs).unref()
    try {
      // The loop visits those that are added meanwhile, too.
      for (const running of series) await running
    } finally {
      clearInterval(spread)
      await Promise.allSettled(series)
    }
  }

  /** As many as run so many events in about the time that it takes to add another one. */
  function seriesFor(eventCount: number): number {
    const most = subscription.tenantConcurrency ?? subscription.concurrency
    return Math.min(most, Math.ceil((metrics.averageMs * eventCount) / spreadIntervalMs))
  }

  /** Runs one transaction after the other. Resolves to the overrun of a handler that keeps the slot. */
  async function runSeries(work: JobInTransactions): Promise<Overrun | undefined> {
    while (work.mayStart) {
      const overrun = await runTransaction(work)
      if (overrun !== undefined) return overrun
    }
    return undefined
  }

  /** Runs one transaction. Resolves to the overrun of a handler that keeps its slot, and that of its tenant. */
  async function runTransaction(work: JobInTransactions): Promise<Overrun | undefined> {
    const tenants = new TenantSlots(limit)
    const isIsolated = work.isolated.length > 0
    const first = await takeFirst(work, tenants, isIsolated ? work.isolated : work.pending)
    if (first === undefined) return undefined
    await permits.acquire()
    let overrun: Overrun | undefined
    try {
      const transaction = await begin(work, tenants, isIsolated)
      if (transaction !== undefined) overrun = await runEvents(transaction, first, tenants)
    } finally {
      permits.release()
      if (overrun === undefined) tenants.release()
      else void overrun.ended.then(() => tenants.release())
    }
    return overrun
  }

  /** Takes the event to begin with, and the slot of its tenant. While all tenants are at their limit, it waits without a handler slot. */
  async function takeFirst(
    work: JobInTransactions,
    tenants: TenantSlots,
    eventIds: string[],
  ): Promise<TakenEvent | undefined> {
    const taken = tenants.take(work, eventIds) ?? (await waitForTenant(work, tenants, eventIds))
    if (taken !== undefined) tenants.hold(taken)
    return taken
  }

  async function waitForTenant(
    work: JobInTransactions,
    tenants: TenantSlots,
    eventIds: string[],
  ): Promise<TakenEvent | undefined> {
    const { job } = work
    const tenantId = job.events.tenantOf(eventIds[0] ?? '')
    if (tenantId === undefined || limit === undefined) return undefined
    const waitingCount = eventIds.length
    const slot = slots.of[job.kind]
    work.waitingForTenantCount += 1
    job.markWaitingForTenant(waitingCount)
    slot.release()
    await limit.acquire(tenantId)
    if (!slot.tryAcquire()) await slot.acquire()
    job.markWaitingForTenant(-waitingCount)
    work.waitingForTenantCount -= 1
    return tenants.takeOf(tenantId, work, eventIds)
  }

  /** Undefined where the job is requeued meanwhile: the event that was taken is still among those that are left of it. */
  async function begin(
    work: JobInTransactions,
    tenants: TenantSlots,
    isIsolated: boolean,
  ): Promise<TransactionRun | undefined> {
    const { job } = work
    if (!job.mayStart) return undefined
    const name = `${namePrefix(job.claim)}${job.claim.retryCount}:${work.transactionCount}:`
    work.transactionCount += 1
    const transaction = await settlements.retryUntilDone(async () =>
      connections.begin(name, subscription.timeoutSeconds + idleMarginSeconds),
    )
    if (job.mayStart) return new TransactionRun(work, transaction, tenants, isIsolated)
    await transaction.rollback()
    return undefined
  }

  async function runEvents(
    transaction: TransactionRun,
    first: TakenEvent,
    tenants: TenantSlots,
  ): Promise<Overrun | undefined> {
    const { work, eventIds, outcomes } = transaction
    const { job } = work
    try {
      for (let event: TakenEvent | undefined = first; event !== undefined; event = transaction.next) {
        tenants.hold(event)
        transaction.next = undefined
        eventIds.push(event.eventId)
        const step =
          work.failed?.eventId === event.eventId
            ? ({ kind: 'done', outcome: work.failed } as const)
            : await runEvent(worker, transaction, event.eventId)
        const isBroken = step.kind !== 'done' && step.kind !== 'interrupted'
        // Behind an event of a key that is not over, none is started.
        const stopsKey = job.isOfKey && !(step.kind === 'done' && step.outcome.delivered)
        if (isBroken || stopsKey) transaction.putNextBack()
        if (isBroken) {
          await abandon(transaction, step)
          return transaction.overrun
        }
        if (step.kind === 'done') outcomes.push(step.outcome)
        else work.isStopped = stopsKey
      }
      await settle(transaction)
      return undefined
    } catch (error) {
      transaction.transaction.destroy()
      throw error
    } finally {
      transaction.close()
    }
  }

  return {
    run,
    /** The worker that had the job before may still run: it could not commit, but it could keep others waiting. */
    prepare: async (claim) => endTransactions(namePrefix(claim)),
  }
}

function namePrefix({ id }: JobClaim): string {
  return `bossbus:${id}:`
}
