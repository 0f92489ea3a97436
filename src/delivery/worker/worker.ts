// oxlint-disable max-lines -- one closure over the life of a job, until a claimed job is an object with behaviour of its own
import type { JobWithMetadata } from 'pg-boss'
import type { StoredEvent } from '../../events/envelope.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import {
  abortAll,
  createActiveJob,
  isUncovered,
  laneOf,
  refreshEvents,
  type ActiveJob,
} from '../in-flight/active-job.ts'
import { goOnAfterLoss } from './recover-lost-job.ts'
import { createAtLeastOnce } from './at-least-once.ts'
import { attemptStarter } from '../attempts/attempt.ts'
import { isCopy, isJobOfBus, toClaim, wasLost } from '../jobs/claimed-job.ts'
import { createExactlyOnce } from '../exactly-once/exactly-once.ts'
import type { LoadedEvents } from '../attempts/event-reader.ts'
import { slowHandlerMs, startFetcher } from './fetcher.ts'
import { createFlow, failedProbeDelaySeconds } from '../flow-control/pause-and-breaker.ts'
import { cancelForeignJob } from '../jobs/foreign-job.ts'
import { isBatch, type JobData } from '../jobs/job.ts'
import { createHeartbeat } from '../in-flight/heartbeat.ts'
import { createJobsInHand, type Room } from '../in-flight/jobs-in-flight.ts'
import { isSuspect } from '../settlement/lost-job.ts'
import { missesOf } from '../in-flight/missing-event.ts'
import { logUndelivered, type EventOutcome } from '../attempts/outcome.ts'
import { createOverruns, type Overrun } from '../attempts/overruns.ts'
import { showOverrun } from '../ordering/overrunning-key.ts'
import { wakeOthers, writeOutcomes } from './write-settlements.ts'
import { createPace } from '../attempts/handler-metrics.ts'
import { markAlone } from '../in-flight/quarantine.ts'
import { recoverKeys } from '../ordering/recover-keys.ts'
import { readReceipts } from '../settlement/receipts.ts'
import type { Settlement } from '../settlement/settlement.ts'
import { createSettler } from '../settlement/settlement-queue.ts'
import { createSlots, type Lane } from '../concurrency/handler-slots.ts'
import { beginSplit, splitJob } from '../in-flight/split-job.ts'
import { admitEvents, createTenantLimit, refill } from '../in-flight/tenant-limit.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import { handleUncovered } from './uncovered-events.ts'
import type { Worker, WorkerParts } from './worker-parts.ts'
import { queueName } from '../jobs/queues.ts'
import { waitUntil } from '../../foundation/with-timeout.ts'

/** Keys of an ordered subscription that are worked on at a time, while handlers are fast. */
const maxKeysInHand = 64

const tickMs = 1000
const abortedHandlersMs = 1000

/** Starts fetching the jobs of a subscription. */
export function startWorker(subscription: Subscription, subscriptionId: number, parts: WorkerParts): Worker {
  const { database, boss, catalogue, logger, connections, publishing } = parts
  const queue = queueName(subscription.name)
  const slots = createSlots(subscription.concurrency, () => fetcher.madeRoom())
  const settler = createSettler(write, logger)
  const startAttempt = attemptStarter(subscription, catalogue, logger, publishing)
  const overruns = createOverruns(subscription, logger, (tenantId, change) => {
    limit?.outlive(tenantId, change)
    if (change < 0) callBackOf(tenantId)
  })
  const pace = createPace()
  const averageMs = (): number => pace.averageMs
  const limit = createTenantLimit(subscription.tenantConcurrency, averageMs)
  let stopping = false
  const lent = {
    ...{ database, settler, slots, limit, setAside, startAttempt, finishEvent },
    ...{ noteAttempt, mayBegin, refresh, overruns },
    judge: (outcome: EventOutcome, event: StoredEvent) => flow.note(outcome, event),
    outlives: (lane: Lane, overrun: Overrun) => inHand.outlive(lane, overrun, noteRoom),
    keyWaits: (job: ActiveJob) => showOverrun(job, database, subscription, settler),
    touch: async () => heartbeat.touch(),
  }
  const { onFailures } = parts
  const own = { boss, subscription, subscriptionId, logger, lose, averageMs, onFailures }
  const exactlyOnce = connections && createExactlyOnce<ActiveJob>({ ...lent, ...own, connections, onReady })
  const atLeastOnce = createAtLeastOnce({ ...lent, giveBackRest })
  const flow = createFlow(database, subscription, subscriptionId, parts.state, logger, () => fetcher.wake())

  const uncovered = handleUncovered({
    ...{ database, subscriptionId, coverage: parts.coverage, settler, logger },
    fail(job, eventId, outcome) {
      noteAttempt(outcome, job.events)
      finishEvent(job, eventId, outcome)
    },
  })

  function mayBegin(job: ActiveJob): boolean {
    return !stopping && !job.lost && !job.done && !job.cutShort && (!flow.isHalted || job.isProbe)
  }

  async function write(batch: readonly Settlement[]): Promise<readonly Settlement[]> {
    const { readyCount, left } = await writeOutcomes(
      database,
      boss,
      subscription,
      subscriptionId,
      batch,
      logger,
    )
    if (readyCount > 0) await onReady()
    if (batch.some(({ outcomes }) => outcomes.some((outcome) => !outcome.delivered))) onFailures()
    return left
  }

  /** Jobs are ready: those that keys have next. */
  async function onReady(): Promise<void> {
    if (stopping) await wakeOthers(database, subscriptionId, logger)
    else fetcher.wake()
  }

  /** Fast handlers find their next job in hand; of slow ones other processes get their share. */
  const capacity = (): number => {
    if (isStuck()) return 0
    return subscription.ordered === true && pace.handledCount > 0 && pace.averageMs < slowHandlerMs
      ? Math.max(subscription.concurrency, maxKeysInHand)
      : subscription.concurrency
  }

  /** Every slot is taken by a handler whose attempt is over. */
  const isStuck = (): boolean => overruns.count >= subscription.concurrency

  const inHand = createJobsInHand(capacity, slots)

  function room(): Room {
    if (!flow.isHalted) return inHand.room()
    // What is in hand is not to wait for what is not fetched.
    slots.expect('later', false)
    return { lane: 'any', events: flow.wantsProbe ? 1 : 0, jobs: 1 }
  }

  function hasRoom(): boolean {
    if (flow.isHalted) return false
    const { events, jobs } = inHand.room()
    return events > 0 && jobs > 0
  }

  function noteRoom(): void {
    if (hasRoom()) fetcher.madeRoom()
  }

  function begin(fetched: JobWithMetadata<JobData>, fetchedAt: number): void {
    if (!isJobOfBus(fetched)) return cancelForeignJob(boss, queue, fetched, logger)
    const { heartbeatSeconds } = fetched
    const job = createActiveJob(
      toClaim(fetched),
      fetchedAt,
      heartbeatSeconds ?? subscription.heartbeatSeconds,
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
    await database.faultPoint?.('worker.loaded')
    for (const eventId of delivered) finishEvent(job, eventId, undefined)
    const runnable = await uncovered.split(job)
    const run = async (eventIds: Iterable<string>): Promise<boolean> => {
      if (exactlyOnce === undefined) return atLeastOnce.run(job, attempt, eventIds)
      if (await exactlyOnce.run(job, attempt, eventIds)) release(job)
      return job.unsettled.some((outcome) => !outcome.delivered)
    }
    let failed = job.isProbe && (await probe(job, runnable, run))
    if (!failed && runnable.size > 0 && mayBegin(job)) {
      if (limit === undefined) failed = await run(runnable)
      else {
        const admitted = admitEvents(limit, job).filter((id) => runnable.has(id))
        setAside(job, job.left.size - admitted.length)
        failed = await run(admitted)
      }
    }
    if (!failed && !job.done && isUncovered(job)) failed = await uncovered.leave(job, attempt)
    await job.splitting
    if (job.done) return
    if (job.left.size > 0 && !failed) return handBack(job)
    // Until it is written: a suspect that is followed by another one too early would be blamed for it.
    await new Promise<void>((resolve) => {
      const isNoted = job.marking !== undefined
      settler.add({ claim, outcomes: job.unsettled.splice(0), done: true, isNoted }, () => {
        release(job)
        resolve()
      })
    })
  }

  /** Tries the first event of a job while the circuit breaker is open. Gives what `run` gave. */
  async function probe(
    job: ActiveJob,
    runnable: ReadonlySet<string>,
    run: (eventIds: Iterable<string>) => Promise<boolean>,
  ): Promise<boolean> {
    const before = pace.deliveredCount
    const failed = runnable.size > 0 && (await run([...runnable].slice(0, 1)))
    job.isProbe = false
    const isDelivered = pace.deliveredCount > before
    await flow.endProbe(isDelivered || (job.forgiven === undefined ? undefined : false), job.forgiven?.thrown)
    return failed
  }

  /** Payloads that were read too long ago are read again: they may have been erased. */
  function refresh(job: ActiveJob): Promise<void> | undefined {
    return refreshEvents(job, async (ids) => settler.untilWritten(async () => parts.events.load(ids)))
  }

  function noteAttempt(outcome: EventOutcome, events: LoadedEvents): void {
    logUndelivered(logger, subscription, outcome, events)
    pace.note(outcome)
  }

  function finishEvent(job: ActiveJob, eventId: string, outcome: EventOutcome | undefined): void {
    if (!inHand.finishEvent(job, eventId)) return
    forget(job, eventId)
    if (outcome !== undefined) job.unsettled.push(outcome)
    noteRoom()
  }

  function setAside(job: ActiveJob, count: number): void {
    inHand.setAside(job, count)
    if (count > 0) noteRoom()
  }

  /** An event is out of hand: its tenant may need others, which were put off. */
  function forget(job: ActiveJob, eventId: string): void {
    const tenantId = job.held.get(eventId)
    if (limit === undefined || tenantId === undefined) return
    job.held.delete(eventId)
    limit.forget(tenantId)
    callBackOf(tenantId)
  }

  function callBackOf(tenantId: string): void {
    if (limit !== undefined && !stopping) refill(limit, database, queue, tenantId, () => fetcher.wake())
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
    // Its attempt was over before; only its handler is not. In the mode exactly-once events before it may have to run again.
    if (job.overrun !== undefined && job.overrun.eventId === handedBack[0]) outcomes.push(job.overrun)
    job.done = true
    // Another one is tried next.
    if (job.forgiven !== undefined && !job.cutShort) job.delaySeconds = failedProbeDelaySeconds
    const { claim, delaySeconds, lineKey, leftToOthers: left } = job
    if (job.isMissing)
      logger.warn(
        { subscription: subscription.name, eventCount: handedBack.length, delaySeconds },
        'events were not found in the log yet: they are retried',
      )
    const isNoted = job.marking !== undefined
    const back = { handedBack, delaySeconds, misses: missesOf(job), lineKey, left }
    const settlement = { claim, outcomes, done: true, isNoted, ...back }
    return new Promise((resolve) => {
      settler.add(settlement, () => {
        release(job)
        // When they are due is not known here; who can take them at once does so.
        if (delaySeconds > 0) onFailures()
        else if (left === undefined) fetcher.wake()
        else uncovered.noteLeft()
        resolve()
      })
    })
  }

  /** Forgets a job and what is left of it. */
  function release(job: ActiveJob): void {
    job.done = true
    inHand.drop(job)
    for (const eventId of job.held.keys()) forget(job, eventId)
    noteRoom()
  }

  /** What waits here behind handlers that run on goes to other processes, or back here once there is room. */
  function giveBackWaiting(now: number): void {
    for (const job of inHand) {
      const waitsLong = now - job.startedAt > subscription.timeoutSeconds * 1000
      if (job.done || job.left.size === 0 || job.rest.length > 0 || !(isStuck() || waitsLong)) continue
      if (job.running.size === 0) void handBack(job)
      // In a transaction it is not known which of them were begun; its lanes end by themselves.
      else if (exactlyOnce === undefined && isBatch(job.claim.data)) giveBackRest(job)
    }
  }

  /** Once a second: receipts of long batches are written early, and claims are kept alive. */
  function tick(): void {
    const now = performance.now()
    if (overruns.count > 0 && !stopping) giveBackWaiting(now)
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
    logger.warn(fields, 'the database was unreachable for as long as a claim lasts: handlers are aborted')
    job.cutShort = true
    abortAll(job, 'claim expired')
  }

  const heartbeat = createHeartbeat(boss, queue, subscription.heartbeatSeconds, inHand, lose, expire, logger)
  const ticker = setInterval(tick, tickMs).unref()
  const { coverage } = parts
  const ignoredGroups = (): readonly string[] => coverage.ignoredGroups
  const fetcher = startFetcher({
    ...{ boss, database, queue, logger, room, slots, averageMs, ignoredGroups, begin },
  })

  async function stop(graceMs: number, relayStopped: Promise<void>): Promise<void> {
    stopping = true
    flow.stop()
    const deadline = performance.now() + graceMs
    settler.giveUpAt(deadline + abortedHandlersMs)
    await waitUntil(deadline, Promise.all([fetcher.stop(), relayStopped]))
    await inHand.untilIdle(deadline)
    for (const job of inHand) {
      job.cutShort = true
      abortAll(job, 'shutdown')
    }
    if (inHand.size > 0) await database.faultPoint?.('stop.aborted')
    await inHand.untilIdle(performance.now() + abortedHandlersMs)
    await Promise.allSettled(
      [...inHand].map(async ({ splitting, marking }) => Promise.all([splitting, marking])),
    )
    for (const job of inHand) if (!job.done && job.left.size > 0) void handBack(job)
    await settler.idle()
    await database.faultPoint?.('stop.requeued')
    clearInterval(ticker)
  }

  return {
    subscriptionId,
    name: subscription.name,
    ordered: subscription.ordered === true,
    overruns,
    get inHandCount() {
      return inHand.eventCount
    },
    isFree: (types, declarations) =>
      // Where later attempts wait, they would be fetched in its place.
      !stopping && hasRoom() && !slots.isExpected('later') && coverage.coversAll(types, declarations),
    wake: () => fetcher.wake(),
    applyState(state, readAt) {
      if (flow.apply(state, readAt)) parts.onState(state)
    },
    adopt(jobs, fetchedAt) {
      for (const job of jobs) begin(job, fetchedAt)
      if (jobs.some((job) => laneOf(job) === 'later')) slots.expect('later', true)
    },
    async recoverKeys() {
      if (stopping) return
      if (await recoverKeys(database, boss, subscription, subscriptionId, logger)) fetcher.wake()
    },
    stop,
  }
}
