import type { JobWithMetadata } from 'pg-boss'
import type { StoredEvent } from '../events/envelope.ts'
import { abortAll, createActiveJob, refreshEvents, type ActiveJob } from './active-job.ts'
import { goOnAfterLoss } from './after-loss.ts'
import { createAtLeastOnce } from './at-least-once.ts'
import { attemptStarter } from './attempt.ts'
import { isCopy, toClaim, wasLost } from './claimed-job.ts'
import { createExactlyOnce } from './exactly-once.ts'
import { slowHandlerMs, startFetcher } from './fetcher.ts'
import { createFlow, failedProbeDelaySeconds } from './flow.ts'
import type { JobData } from './job.ts'
import { createGate } from './gate.ts'
import { createHeartbeat } from './heartbeat.ts'
import { createJobsInHand } from './jobs-in-hand.ts'
import { isSuspect } from './lost-job.ts'
import { logUndelivered } from './outcome.ts'
import { wakeOthers, writeOutcomes } from './outcome-writer.ts'
import { markAlone } from './quarantine.ts'
import { recoverKeys } from './recover-keys.ts'
import { readReceipts } from './receipts.ts'
import type { EventOutcome, Settlement } from './settlement.ts'
import { createSettler, reasonOf } from './settler.ts'
import { beginSplit, splitJob } from './split-job.ts'
import { admitEvents, createTenantLimit, refill } from './tenant-limit.ts'
import { queueName, type Subscription } from './subscription.ts'
import { within } from './within.ts'
import type { Worker, WorkerParts } from './worker-parts.ts'

/** Keys of an ordered subscription that are worked on at a time, while handlers are fast. */
const maxKeysInHand = 64

const tickMs = 1000
const abortedHandlersMs = 1000

/** Starts fetching the jobs of a subscription. */
export function startWorker(subscription: Subscription, subscriptionId: number, parts: WorkerParts): Worker {
  const { database, boss, catalogue, logger, connections, publishCaused } = parts
  const queue = queueName(subscription.name)
  const slots = createGate(subscription.concurrency)
  const settler = createSettler(write, logger)
  const limit = createTenantLimit(subscription.tenantConcurrency, () => averageMs)
  const startAttempt = attemptStarter(subscription, catalogue, logger, publishCaused)
  let stopping = false
  let handledCount = 0
  let deliveredCount = 0
  let averageMs = 0
  const judge = (outcome: EventOutcome, event: StoredEvent): void => flow.note(outcome, event)
  const exactlyOnce =
    connections &&
    createExactlyOnce<ActiveJob>({
      ...{ database, boss, connections, subscription, subscriptionId, logger, settler, slots },
      ...{ limit, setAside, startAttempt, finishEvent, noteAttempt, lose, onFailures: parts.onFailures },
      ...{ judge, refresh, mayBegin, averageMs: () => averageMs },
    })
  const atLeastOnce = createAtLeastOnce({
    ...{ database, settler, slots, limit, setAside, startAttempt, finishEvent, noteAttempt },
    ...{ mayBegin, refresh, judge, giveBackRest },
    touch: async () => heartbeat.touch(),
  })
  const flow = createFlow(database, subscription, subscriptionId, parts.state, logger, () => fetcher.wake())

  function mayBegin(job: ActiveJob): boolean {
    return !stopping && !job.lost && !job.done && !job.cutShort && (!flow.isHalted || job.isProbe)
  }

  async function write(batch: readonly Settlement[]): Promise<void> {
    const readyCount = await writeOutcomes(database, boss, subscription, subscriptionId, batch, logger)
    if (readyCount > 0 && stopping) await wakeOthers(database, subscriptionId, logger)
    else if (readyCount > 0) fetcher.wake()
    if (batch.some(({ outcomes }) => outcomes.some((outcome) => !outcome.delivered))) parts.onFailures()
  }

  /** Fast handlers find their next job in hand; of slow ones other processes get their share. */
  const capacity = (): number =>
    subscription.ordered === true && handledCount > 0 && averageMs < slowHandlerMs
      ? Math.max(subscription.concurrency, maxKeysInHand)
      : subscription.concurrency

  const inHand = createJobsInHand(capacity)

  function room(): { readonly events: number; readonly jobs: number } {
    if (flow.isHalted) return { events: flow.wantsProbe ? 1 : 0, jobs: 1 }
    return inHand.room()
  }

  function hasRoom(): boolean {
    if (flow.isHalted) return false
    const { events, jobs } = inHand.room()
    return events > 0 && jobs > 0
  }

  function begin(fetched: JobWithMetadata<JobData>, fetchedAt: number): void {
    const job = createActiveJob(
      toClaim(fetched),
      fetchedAt,
      fetched.heartbeatSeconds ?? subscription.heartbeatSeconds,
    )
    job.isProbe = flow.takeProbe()
    inHand.add(job)
    void process(job, fetched).catch((error: unknown) => {
      // Not a handler's failure: the job was not even begun. It stays active and is given back below.
      logger.error(
        { subscription: subscription.name, reason: reasonOf(error) },
        'a job could not be processed',
      )
      void handBack(job)
    })
  }

  async function process(job: ActiveJob, fetched: JobWithMetadata<JobData>): Promise<void> {
    const { claim } = job
    if (claim.retryCount > 0) await exactlyOnce?.endPredecessors(claim)
    if (wasLost(fetched) || (claim.data.eventIds.length > 1 && claim.retryCount > 0))
      return parts.quarantine.clearUp(async () => {
        await goOnAfterLoss(database, boss, subscription, subscriptionId, claim, settler, logger)
        release(job)
        fetcher.wake()
      })
    if (!isSuspect(claim.data)) return deliver(job, isCopy(fetched))
    return parts.quarantine.alone(async () => {
      if (!mayBegin(job)) return job.done ? undefined : handBack(job)
      const isOurs = await settler.untilWritten(async () => markAlone(database, subscription, claim))
      if (!isOurs) lose(job)
      else await deliver(job, isCopy(fetched))
    })
  }

  async function deliver(job: ActiveJob, copied: boolean): Promise<void> {
    const { claim } = job
    const attempt = (claim.data.attempts ?? 0) + claim.retryCount + 1
    const mayBeDelivered = exactlyOnce !== undefined || attempt > 1 || copied
    const [, delivered] = await settler.untilWritten(async () =>
      Promise.all([
        refreshEvents(job, parts.events.load),
        mayBeDelivered ? readReceipts(database, subscriptionId, claim.data.eventIds) : new Set<string>(),
      ]),
    )
    await database.reach?.('worker.loaded')
    for (const eventId of delivered) finishEvent(job, eventId, undefined)
    const run = async (eventIds: Iterable<string>): Promise<boolean> => {
      if (exactlyOnce === undefined) return atLeastOnce.run(job, attempt, eventIds)
      if (await exactlyOnce.run(job, attempt, eventIds)) release(job)
      return false
    }
    let failed = job.isProbe && (await probe(job, run))
    if (!failed && mayBegin(job)) {
      if (limit === undefined) failed = await run(job.left)
      else {
        const admitted = admitEvents(limit, job)
        setAside(job, job.left.size - admitted.length)
        failed = await run(admitted)
      }
    }
    await job.splitting
    if (job.done) return
    if (job.left.size > 0 && !failed) return handBack(job)
    // Until it is written: a suspect that is followed by another one too early would be blamed for it.
    await new Promise<void>((resolve) => {
      settler.add({ claim, outcomes: job.unsettled.splice(0), done: true }, () => {
        release(job)
        resolve()
      })
    })
  }

  /** Tries the first event of a job while the circuit breaker is open. Gives what `run` gave. */
  async function probe(
    job: ActiveJob,
    run: (eventIds: Iterable<string>) => Promise<boolean>,
  ): Promise<boolean> {
    const before = deliveredCount
    const failed = await run([...job.left].slice(0, 1))
    job.isProbe = false
    const isDelivered = deliveredCount > before
    await flow.endProbe(isDelivered || (job.forgiven === undefined ? undefined : false), job.forgiven?.thrown)
    return failed
  }

  /** Payloads that were read too long ago are read again: they may have been erased. */
  function refresh(job: ActiveJob): Promise<void> | undefined {
    return refreshEvents(job, async (ids) => settler.untilWritten(async () => parts.events.load(ids)))
  }

  function noteAttempt(outcome: EventOutcome): void {
    logUndelivered(logger, subscription.name, outcome)
    if (outcome.delivered && (outcome.expired ?? outcome.erased) === true) return
    handledCount += 1
    if (!outcome.delivered) return
    deliveredCount += 1
    averageMs += (outcome.durationMs - averageMs) / Math.min(handledCount, 20)
  }

  function finishEvent(job: ActiveJob, eventId: string, outcome: EventOutcome | undefined): void {
    if (!inHand.finishEvent(job, eventId)) return
    forget(job, eventId)
    if (outcome !== undefined) job.unsettled.push(outcome)
    if (hasRoom()) fetcher.madeRoom()
  }

  function setAside(job: ActiveJob, count: number): void {
    inHand.setAside(job, count)
    if (count > 0 && hasRoom()) fetcher.madeRoom()
  }

  /** An event is out of hand: its tenant may need others, which were put off. */
  function forget(job: ActiveJob, eventId: string): void {
    const tenantId = job.held.get(eventId)
    if (limit === undefined || tenantId === undefined) return
    job.held.delete(eventId)
    limit.forget(tenantId)
    if (!stopping) refill(limit, database, queue, tenantId, () => fetcher.wake())
  }

  /** A batch has had its time: what runs goes on, the others go back to the line. */
  function giveBackRest(job: ActiveJob): void {
    const write = async (): Promise<boolean> =>
      settler.untilWritten(async () => splitJob(database, boss, subscription, job))
    for (const id of beginSplit(job, write, () => lose(job))) finishEvent(job, id, undefined)
    void job.splitting?.then(
      () => fetcher.wake(),
      () => {},
    )
  }

  /** Puts what is left of a job back as it came. Resolves when that is written, or given up. */
  async function handBack(job: ActiveJob): Promise<void> {
    const handedBack = [...job.left, ...job.rest]
    const outcomes = job.unsettled.splice(0)
    job.done = true
    // Another one is tried next.
    if (job.forgiven !== undefined && !job.cutShort) job.delaySeconds = failedProbeDelaySeconds
    const { claim, delaySeconds, lineKey } = job
    const settlement = { claim, outcomes, done: true, handedBack, delaySeconds, lineKey }
    return new Promise((resolve) => {
      settler.add(settlement, () => {
        release(job)
        // When they are due is not known here; who can take them at once does so.
        if (delaySeconds > 0) parts.onFailures()
        else fetcher.wake()
        resolve()
      })
    })
  }

  /** Forgets a job and what is left of it. */
  function release(job: ActiveJob): void {
    job.done = true
    inHand.drop(job)
    for (const eventId of job.held.keys()) forget(job, eventId)
    if (hasRoom()) fetcher.madeRoom()
  }

  /** Once a second: receipts of long batches are written early, and claims are kept alive. */
  function tick(): void {
    const now = performance.now()
    for (const job of inHand) {
      if (!job.done && job.left.size > 0 && job.unsettled.length > 0 && now - job.startedAt > tickMs) {
        settler.add({ claim: job.claim, outcomes: job.unsettled.splice(0), done: false })
      }
    }
    heartbeat.tick()
  }

  function lose(job: ActiveJob): void {
    if (job.done) return
    const fields = { subscription: subscription.name, jobId: job.claim.id }
    logger.warn(fields, 'another worker has taken a job over: its handlers are aborted')
    job.lost = true
    abortAll(job, 'claim lost')
    release(job)
  }

  /** What its handlers still do counts if nobody has taken the job over when the database is back; it begins nothing more. */
  function expire(job: ActiveJob): void {
    const fields = { subscription: subscription.name, jobId: job.claim.id }
    logger.warn(fields, 'the database was not reached for as long as a claim lasts: handlers are aborted')
    job.cutShort = true
    abortAll(job, 'claim expired')
  }

  const heartbeat = createHeartbeat(boss, queue, subscription.heartbeatSeconds, inHand, lose, expire, logger)
  const ticker = setInterval(tick, tickMs)
  const fetcher = startFetcher({
    boss,
    database,
    queue,
    logger,
    room,
    averageMs: () => averageMs,
    begin,
  })

  async function stop(graceMs: number, relayStopped: Promise<void>): Promise<void> {
    stopping = true
    flow.stop()
    const deadline = performance.now() + graceMs
    settler.giveUpAt(deadline + abortedHandlersMs)
    await within(deadline, Promise.all([fetcher.stop(), relayStopped]))
    await inHand.untilIdle(deadline)
    for (const job of inHand) {
      job.cutShort = true
      abortAll(job, 'shutdown')
    }
    if (inHand.size > 0) await database.reach?.('stop.aborted')
    await inHand.untilIdle(performance.now() + abortedHandlersMs)
    await Promise.allSettled([...inHand].map(async ({ splitting }) => splitting))
    for (const job of inHand) if (!job.done && job.left.size > 0) void handBack(job)
    await settler.idle()
    await database.reach?.('stop.handed-back')
    clearInterval(ticker)
  }

  return {
    subscriptionId,
    name: subscription.name,
    ordered: subscription.ordered === true,
    get runningCount() {
      return inHand.runningCount
    },
    get isFree() {
      return !stopping && hasRoom()
    },
    wake: () => fetcher.wake(),
    applyState: (state, readAt) => flow.apply(state, readAt),
    adopt: (jobs, fetchedAt) => jobs.forEach((job) => begin(job, fetchedAt)),
    async recoverKeys() {
      if (stopping) return
      if (await recoverKeys(database, boss, subscription, subscriptionId, logger)) fetcher.wake()
    },
    stop,
  }
}
