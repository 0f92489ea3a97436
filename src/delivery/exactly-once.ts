import { createEventRunner, watchAborts } from './event-step.ts'
import type { ExactlyOnceParts, HeldJob, HeldWork } from './held-job.ts'
import type { EventOutcome, JobClaim } from './settlement.ts'
import { createTransactionEnd } from './transaction-end.ts'

/**
 * Most events in one transaction. Each that writes is a subtransaction, and PostgreSQL keeps track of 64 of them in
 * memory: with more, every reader of the rows has to look them up on disk.
 */
const maxEventsPerTransaction = 50

/** A transaction that is older takes no further event: its locks, and what an error in it takes along, stay small. */
const maxTransactionMs = 500

/** While events of a job wait, another transaction is opened beside the others this often, up to the concurrency. */
const spreadIntervalMs = 100

/** Beyond the time a handler may take, before the server ends a transaction that nothing is heard of. */
const idleMarginSeconds = 10

/**
 * Runs the events of jobs in transactions that also hold their receipts and the jobs' completion: docs/adr/0006.
 * One transaction carries several events of a job, one after the other, each behind a savepoint; a job whose handlers
 * are slow is spread over several transactions at a time.
 */
export function createExactlyOnce<J extends HeldJob>(parts: ExactlyOnceParts<J>) {
  const { connections, subscription, settler, slots } = parts
  const { share } = connections
  const runEvent = createEventRunner(parts)
  const { settle, abandon, endTransactions } = createTransactionEnd(parts)

  /**
   * Runs events of a job. Resolves to whether the job was completed; if not, and nothing of it is left, its
   * settlement is the worker's.
   */
  async function run(job: J, attempt: number, eventIds: readonly string[]): Promise<boolean> {
    const work: HeldWork<J> = {
      job,
      attempt,
      pending: [...eventIds],
      alone: [],
      lostOnce: new Set(),
      settleFailures: 0,
      transactionCount: 0,
      completed: false,
    }
    const lanes = new Set<Promise<void>>()
    const addLane = (): void => {
      const lane = runLane(work).finally(() => slots.leave())
      // Looked at below; until then a rejection is nobody's fault.
      lane.catch(() => {})
      lanes.add(lane)
    }
    if (!slots.tryEnter()) await slots.enter()
    addLane()
    const spread = setInterval(() => {
      if (work.pending.length > 0 && parts.mayBegin(job) && slots.tryEnter()) addLane()
    }, spreadIntervalMs)
    try {
      // Those that are added meanwhile are visited too.
      for (const lane of lanes) await lane
    } finally {
      clearInterval(spread)
      await Promise.allSettled(lanes)
    }
    return work.completed
  }

  async function runLane(work: HeldWork<J>): Promise<void> {
    while (parts.mayBegin(work.job) && work.pending.length + work.alone.length > 0) {
      await share.take()
      try {
        await runTransaction(work)
      } finally {
        share.giveBack()
      }
    }
  }

  async function runTransaction(work: HeldWork<J>): Promise<void> {
    const { job, pending } = work
    if (!parts.mayBegin(job)) return
    const name = `${jobPrefix(job.claim)}${job.claim.retryCount}:${work.transactionCount}:`
    work.transactionCount += 1
    const transaction = await settler.untilWritten(async () =>
      connections.begin(name, subscription.timeoutSeconds + idleMarginSeconds),
    )
    const isAlone = work.alone.length > 0
    let eventId = parts.mayBegin(job) ? (isAlone ? work.alone : pending).shift() : undefined
    if (eventId === undefined) return transaction.rollback()
    const lane = watchAborts(job, name)
    const beganAt = performance.now()
    const eventIds: string[] = []
    const outcomes: EventOutcome[] = []
    try {
      while (eventId !== undefined) {
        eventIds.push(eventId)
        let following: string | undefined
        const takeFollowing = (): boolean => {
          const goesOn =
            !isAlone &&
            eventIds.length < maxEventsPerTransaction &&
            performance.now() - beganAt < maxTransactionMs &&
            parts.mayBegin(job)
          following = goesOn ? pending.shift() : undefined
          return following !== undefined
        }
        const step = await runEvent(work, transaction, lane, eventId, takeFollowing)
        if (step.kind === 'done') outcomes.push(step.outcome)
        else if (step.kind !== 'cut short') {
          if (following !== undefined) pending.unshift(following)
          return await abandon(work, transaction, eventIds, step)
        }
        eventId = following
      }
      await settle(work, transaction, eventIds, outcomes)
    } catch (error) {
      transaction.destroy()
      throw error
    } finally {
      job.running.delete(name)
    }
  }

  return {
    run,
    /** Whoever had the job before may live on: it could not commit, but it could keep others waiting. */
    endPredecessors: async (claim: JobClaim) => endTransactions(jobPrefix(claim)),
  }
}

function jobPrefix({ id }: JobClaim): string {
  return `bossbus:${id}:`
}
