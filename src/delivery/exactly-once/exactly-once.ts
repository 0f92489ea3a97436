import { isKey } from '../in-flight/active-job.ts'
import { createEventRunner, watchAborts, type EventStep } from './event-step.ts'
import type { ExactlyOnceParts, HeldJob, HeldWork } from './transaction-batch.ts'
import type { Overrun } from '../attempts/overruns.ts'
import { createTransactionEnd } from './transaction-end.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import type { EventOutcome } from '../attempts/outcome.ts'

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

/** An event that a lane has taken, and the place of its tenant that the lane holds. */
interface Taken {
  readonly eventId: string
  readonly places: { tenantId: string | undefined }
  /** Because a transaction broke that it shared. */
  readonly isAlone: boolean
}

/**
 * Runs the events of jobs in transactions that also hold their receipts and the jobs' completion: docs/adr/0006.
 * One transaction carries several events of a job, one after the other, each behind a savepoint; a job whose handlers
 * are slow is spread over several transactions at a time. The events of a key have one transaction after the other: docs/adr/0030.
 */
export function createExactlyOnce<J extends HeldJob>(parts: ExactlyOnceParts<J>) {
  const { connections, subscription, settler, limit } = parts
  const { share } = connections
  const runEvent = createEventRunner(parts)
  const { settle, abandon, endTransactions } = createTransactionEnd(parts)

  /**
   * Runs events of a job. Resolves to whether the job was completed; if not, and nothing of it is left, its
   * settlement is the worker's.
   */
  async function run(job: J, attempt: number, eventIds: Iterable<string>): Promise<boolean> {
    const work: HeldWork<J> = {
      job,
      attempt,
      pending: [...eventIds],
      alone: [],
      lostOnce: new Set(),
      lostRaces: new Map(),
      settleFailures: 0,
      transactionCount: 0,
      waitingLanes: 0,
      failed: undefined,
      stopped: false,
      completed: false,
    }
    if (isKey(job)) await runInOrder(work)
    else await runBeside(work)
    return work.completed
  }

  /**
   * Runs events of a key, up to the first that is not over. Between two transactions the slot goes to who waits for it.
   */
  async function runInOrder(work: HeldWork<J>): Promise<void> {
    const { job } = work
    const slots = parts.slots.gates[job.lane]
    while (goesOn(work)) {
      // After a long pause of this process the key may be in other hands.
      if (performance.now() - job.confirmedAt > job.heartbeatSeconds * 1000) {
        await settler.untilWritten(parts.touch)
        if (!goesOn(work)) return
      }
      const { failed } = work
      if (failed !== undefined && failed.eventId === (work.alone[0] ?? work.pending[0])) {
        // What comes before it is delivered. The worker writes it down, as for any first event of a job.
        parts.noteAttempt(failed, job.events)
        parts.finishEvent(job, failed.eventId, failed)
        return
      }
      if (!slots.tryEnter()) await slots.enter()
      let overrun: Overrun | undefined
      try {
        overrun = await runNext(work)
      } finally {
        if (overrun === undefined) slots.leave()
        else void overrun.ended.then(() => slots.leave())
      }
      if (overrun !== undefined) await untilEnded(job, overrun)
    }
  }

  /** Nothing of a key begins beside a handler that runs on: its job stays in hand, and its claim alive, until that has ended. */
  async function untilEnded(job: J, { ended }: Overrun): Promise<void> {
    if (job.done) return
    const name = 'a handler that runs on'
    job.running.set(name, { abort: () => {} })
    await ended
    await job.marking
    job.running.delete(name)
    job.overrun = undefined
  }

  /** Runs events in no order, in several transactions at a time where handlers are slow. */
  async function runBeside(work: HeldWork<J>): Promise<void> {
    const { job } = work
    const slots = parts.slots.gates[job.lane]
    const lanes = new Set<Promise<void>>()
    const addLane = (): void => {
      const lane = runLane(work).then(
        (overrun) => {
          if (overrun === undefined) slots.leave()
          else void overrun.ended.then(() => slots.leave())
        },
        (error: unknown) => {
          slots.leave()
          throw error
        },
      )
      // Looked at below; until then a rejection is nobody's fault.
      lane.catch(() => {})
      lanes.add(lane)
    }
    if (!slots.tryEnter()) await slots.enter()
    addLane()
    // Those of which it is known that one lane will not do.
    for (let lane = 2; lane <= lanesFor(work.pending.length) && slots.tryEnter(); lane += 1) addLane()
    const spread = setInterval(() => {
      if (work.waitingLanes === 0 && mayTake(work) && slots.tryEnter()) addLane()
    }, spreadIntervalMs).unref()
    try {
      // Those that are added meanwhile are visited too.
      for (const lane of lanes) await lane
    } finally {
      clearInterval(spread)
      await Promise.allSettled(lanes)
    }
  }

  /** As many as run so many events about as long as it takes to open another one. */
  function lanesFor(eventCount: number): number {
    const most = subscription.tenantConcurrency ?? subscription.concurrency
    return Math.min(most, Math.ceil((parts.averageMs() * eventCount) / spreadIntervalMs))
  }

  /** Whether one of the events that are run together may be begun. */
  function mayTake({ job, pending }: HeldWork<J>): boolean {
    return pending.length > 0 && parts.mayBegin(job)
  }

  /** Whether a further transaction is to be begun. */
  function goesOn(work: HeldWork<J>): boolean {
    if (work.completed || work.stopped) return false
    return mayTake(work) || (work.alone.length > 0 && parts.mayBegin(work.job))
  }

  /** Resolves to the overrun of a handler that keeps the lane's slot. */
  async function runLane(work: HeldWork<J>): Promise<Overrun | undefined> {
    while (goesOn(work)) {
      const overrun = await runNext(work)
      if (overrun !== undefined) return overrun
    }
    return undefined
  }

  /** Runs one transaction. Resolves to the overrun of a handler that keeps its slot, and its tenant's place. */
  async function runNext(work: HeldWork<J>): Promise<Overrun | undefined> {
    const first = await takeFirst(work)
    if (first === undefined) return undefined
    await share.take()
    let overrun: Overrun | undefined
    try {
      overrun = await runTransaction(work, first)
    } finally {
      share.giveBack()
      if (overrun === undefined) leave(first.places)
      else void overrun.ended.then(() => leave(first.places))
    }
    return overrun
  }

  /** Takes an event to begin with, and its tenant's place. While all tenants are at their limit, it waits without a slot. */
  async function takeFirst(work: HeldWork<J>): Promise<Taken | undefined> {
    const { alone, pending, job } = work
    const isAlone = alone.length > 0
    const list = isAlone ? alone : pending
    const taken = take(work, list, undefined)
    if (taken !== undefined) return { ...taken, isAlone }
    const [next = ''] = list
    const tenantId = job.events.tenantOf(next)
    if (tenantId === undefined || limit === undefined) return undefined
    const asideCount = list.length
    work.waitingLanes += 1
    const slots = parts.slots.gates[job.lane]
    parts.setAside(job, asideCount)
    slots.leave()
    await limit.enter(tenantId)
    if (!slots.tryEnter()) await slots.enter()
    parts.setAside(job, -asideCount)
    work.waitingLanes -= 1
    const index = list.findIndex((id) => job.events.tenantOf(id) === tenantId)
    const [eventId] = index === -1 || !parts.mayBegin(job) ? [] : list.splice(index, 1)
    if (eventId !== undefined) return { eventId, places: { tenantId }, isAlone }
    limit.leave(tenantId)
    return undefined
  }

  /** Takes an event whose tenant is not at its limit; of the tenant whose place is held already, any. */
  function take(
    { job }: HeldWork<J>,
    list: string[],
    heldTenantId: string | undefined,
  ): Pick<Taken, 'eventId' | 'places'> | undefined {
    if (limit === undefined) {
      const eventId = list.shift()
      return eventId === undefined ? undefined : { eventId, places: { tenantId: undefined } }
    }
    for (const [index, eventId] of list.entries()) {
      const tenantId = job.events.tenantOf(eventId)
      if (tenantId !== undefined && tenantId !== heldTenantId && !limit.tryEnter(tenantId)) {
        // Those of a key wait for its first one.
        if (isKey(job)) break
        continue
      }
      list.splice(index, 1)
      return { eventId, places: { tenantId } }
    }
    return undefined
  }

  function leave({ tenantId }: Taken['places']): void {
    if (tenantId !== undefined) limit?.leave(tenantId)
  }

  async function runTransaction(
    work: HeldWork<J>,
    { eventId: firstId, places, isAlone }: Taken,
  ): Promise<Overrun | undefined> {
    const { job, pending } = work
    if (!parts.mayBegin(job)) return undefined
    const name = `${jobPrefix(job.claim)}${job.claim.retryCount}:${work.transactionCount}:`
    work.transactionCount += 1
    const transaction = await settler.untilWritten(async () =>
      connections.begin(name, subscription.timeoutSeconds + idleMarginSeconds),
    )
    // Handed back: it is still among those that are left of the job.
    if (!parts.mayBegin(job)) {
      await transaction.rollback()
      return undefined
    }
    let eventId: string | undefined = firstId
    const lane = watchAborts(job, name)
    const beganAt = performance.now()
    const eventIds: string[] = []
    const outcomes: EventOutcome[] = []
    try {
      while (eventId !== undefined) {
        eventIds.push(eventId)
        let following: Pick<Taken, 'eventId' | 'places'> | undefined
        const takeFollowing = (): boolean => {
          const goesOn =
            !isAlone &&
            eventIds.length < maxEventsPerTransaction &&
            performance.now() - beganAt < maxTransactionMs &&
            mayTake(work)
          following = goesOn ? take(work, pending, places.tenantId) : undefined
          return following !== undefined
        }
        const step: EventStep =
          work.failed?.eventId === eventId
            ? { kind: 'done', outcome: work.failed }
            : await runEvent(work, transaction, lane, eventId, takeFollowing)
        const isAbandoned = step.kind !== 'done' && step.kind !== 'cut short'
        // Behind an event of a key that is not over nothing is begun.
        const holdsKey = isKey(job) && !(step.kind === 'done' && step.outcome.delivered)
        if (following !== undefined && (isAbandoned || holdsKey)) {
          pending.unshift(following.eventId)
          if (following.places.tenantId !== places.tenantId) leave(following.places)
          following = undefined
        }
        if (step.kind === 'done') outcomes.push(step.outcome)
        else if (step.kind === 'cut short') work.stopped = holdsKey
        else {
          await abandon(work, transaction, eventIds, step)
          return lane.overrun
        }
        eventId = following?.eventId
        if (following !== undefined && following.places.tenantId !== places.tenantId) {
          leave(places)
          places.tenantId = following.places.tenantId
        }
      }
      await settle(work, transaction, eventIds, outcomes)
      return undefined
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
