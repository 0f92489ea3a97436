import type { JobWithMetadata, PgBoss } from 'pg-boss'
import type { EventCatalogue } from '../events/catalogue.ts'
import type { StoredEvent } from '../events/envelope.ts'
import type { BusLogger } from '../events/logger.ts'
import type { Database } from '../outbox/database.ts'
import { createActiveJob, weightOf, type ActiveJob } from './active-job.ts'
import { runAttempt, type AbortReason, type PublishCaused, type RunningAttempt } from './attempt.ts'
import { isCopy, toClaim, wasLost } from './claimed-job.ts'
import { hasExpired, inNewestShape, type EventReader } from './event-store.ts'
import { createExactlyOnce } from './exactly-once.ts'
import { slowHandlerMs, startFetcher } from './fetcher.ts'
import type { HandlerConnections } from './handler-connections.ts'
import type { JobData } from './job.ts'
import { createGate } from './gate.ts'
import { createHeartbeat } from './heartbeat.ts'
import { isSuspect, takeApart } from './lost-job.ts'
import { takeApartOrdered } from './ordered-settlement.ts'
import { eventNotFound, expiredBefore, logUndelivered, toOutcome } from './outcome.ts'
import { wakeOthers, writeOutcomes } from './outcome-writer.ts'
import { markAlone, type Quarantine } from './quarantine.ts'
import { recoverKeys } from './recover-keys.ts'
import { logBuried, readReceipts, type EventOutcome, type Settlement } from './settlement.ts'
import { createSettler, reasonOf } from './settler.ts'
import { queueName, type HandlerTransaction, type Subscription } from './subscription.ts'
import { within } from './within.ts'

/** What a worker needs from its bus. */
export interface WorkerParts {
  readonly database: Database
  readonly boss: PgBoss
  readonly catalogue: EventCatalogue
  readonly events: EventReader
  readonly logger: BusLogger
  readonly publishCaused: PublishCaused
  readonly quarantine: Quarantine
  /** For a subscription in the mode exactly-once. */
  readonly connections: HandlerConnections | undefined
  /** Called after failures were written, with a due time that only the database knows. */
  readonly onFailures: () => void
}

/** Runs the handler of one subscription in this process. */
export interface Worker {
  readonly subscriptionId: number
  readonly name: string
  readonly ordered: boolean
  readonly runningCount: number
  /** Whether a job that arrives now would be fetched at once. */
  readonly isFree: boolean
  /** Jobs may be ready. */
  wake: () => void
  /** Takes jobs that were fetched on its behalf. */
  adopt: (jobs: readonly JobWithMetadata<JobData>[], fetchedAt: number) => void
  /** Lets keys go on whose job ended without its worker: after its last attempt, or by hand. */
  recoverKeys: () => Promise<void>
  /**
   * Begins nothing new, waits for running handlers up to the grace period, aborts the signals of the rest, and puts
   * what was not finished back, with no attempt counted.
   *
   * @param relayStopped - until then, jobs may still be handed over
   */
  stop: (graceMs: number, relayStopped: Promise<void>) => Promise<void>
}

/** Jobs in hand at most, those waiting for their settlement included. */
const maxActiveJobs = 64

const tickMs = 1000
const abortedHandlersMs = 1000

/** Starts fetching the jobs of a subscription. */
export function startWorker(subscription: Subscription, subscriptionId: number, parts: WorkerParts): Worker {
  const { database, boss, catalogue, logger, connections } = parts
  const queue = queueName(subscription.name)
  const active = new Set<ActiveJob>()
  const slots = createGate(subscription.concurrency)
  const settler = createSettler(write, logger)
  let stopping = false
  let pendingCount = 0
  let handledCount = 0
  let averageMs = 0
  const exactlyOnce =
    connections &&
    createExactlyOnce<ActiveJob>({
      ...{ database, boss, connections, subscription, subscriptionId, logger, settler, slots },
      ...{ startAttempt, finishEvent, noteAttempt, lose, onFailures: parts.onFailures },
      mayBegin: (job) => !stopping && !job.lost && !job.done,
    })

  async function write(batch: readonly Settlement[]): Promise<void> {
    const readyCount = await writeOutcomes(database, boss, subscription, subscriptionId, batch, logger)
    if (readyCount > 0 && stopping) await wakeOthers(database, subscriptionId, logger)
    else if (readyCount > 0) fetcher.wake()
    if (batch.some(({ outcomes }) => outcomes.some((outcome) => !outcome.delivered))) parts.onFailures()
  }

  /** Fast handlers find their next job in hand; of slow ones other processes get their share. */
  const capacity = (): number =>
    subscription.ordered === true && handledCount > 0 && averageMs < slowHandlerMs
      ? Math.max(subscription.concurrency, maxActiveJobs)
      : subscription.concurrency

  const hasRoom = (): boolean => pendingCount < capacity() && active.size < maxActiveJobs

  function begin(fetched: JobWithMetadata<JobData>, fetchedAt: number): void {
    const job = createActiveJob(
      toClaim(fetched),
      fetchedAt,
      fetched.heartbeatSeconds ?? subscription.heartbeatSeconds,
    )
    active.add(job)
    pendingCount += weightOf(job)
    void process(job, fetched).catch((error: unknown) => {
      // Not a handler's failure: the job was not even begun. It stays active and is given back below.
      logger.error(
        { subscription: subscription.name, reason: reasonOf(error) },
        'a job could not be processed',
      )
      handBack(job)
    })
  }

  async function process(job: ActiveJob, fetched: JobWithMetadata<JobData>): Promise<void> {
    const { claim } = job
    if (claim.retryCount > 0) await exactlyOnce?.endPredecessors(claim)
    if (wasLost(fetched) || (claim.data.eventIds.length > 1 && claim.retryCount > 0))
      return parts.quarantine.clearUp(async () => goOnAfterLoss(job))
    if (!isSuspect(claim.data)) return deliver(job, isCopy(fetched))
    return parts.quarantine.alone(async () => {
      if (stopping || job.lost || job.done) return
      const isOurs = await settler.untilWritten(async () => markAlone(database, subscription, claim))
      if (!isOurs) lose(job)
      else if (!stopping) await deliver(job, isCopy(fetched))
    })
  }

  /** The worker before this one died: what it left goes on in jobs of its own. */
  async function goOnAfterLoss(job: ActiveJob): Promise<void> {
    const { claim } = job
    const goOn = claim.data.keyId === undefined ? takeApart : takeApartOrdered
    const buried = await settler.untilWritten(async () =>
      goOn(database, boss, subscription, subscriptionId, claim),
    )
    for (const { eventId, output } of buried) logBuried(logger, subscription.name, eventId, output)
    release(job)
    fetcher.wake()
  }

  async function deliver(job: ActiveJob, copied: boolean): Promise<void> {
    const { claim } = job
    const attempt = (claim.data.attempts ?? 0) + claim.retryCount + 1
    const mayBeDelivered = exactlyOnce !== undefined || attempt > 1 || copied
    const [events, delivered] = await settler.untilWritten(async () =>
      Promise.all([
        parts.events.load(claim.data.eventIds),
        mayBeDelivered ? readReceipts(database, subscriptionId, claim.data.eventIds) : new Set<string>(),
      ]),
    )
    await database.reach?.('worker.loaded')
    const byId = new Map(events.map((event) => [event.id, event]))
    for (const eventId of delivered) finishEvent(job, eventId, undefined)
    const handle = async (eventId: string): Promise<void> =>
      handleEvent(job, eventId, byId.get(eventId), attempt)
    let failed = false
    if (exactlyOnce !== undefined) {
      if (await exactlyOnce.run(job, byId, attempt)) release(job)
    } else if (claim.data.keyId === undefined) await Promise.all([...job.left].map(handle))
    else failed = await inOrder(job, handle)
    // Handed back by a shutdown, lost, or finished as a whole.
    if (job.done || (job.left.size > 0 && !failed)) return
    // Until it is written: a suspect that is followed by another one too early would be blamed for it.
    await new Promise<void>((resolve) => {
      settler.add({ claim, outcomes: job.unsettled.splice(0), done: true }, () => {
        release(job)
        resolve()
      })
    })
  }

  /** One event after the other, up to the first that fails. Gives whether one did. */
  async function inOrder(job: ActiveJob, handle: (eventId: string) => Promise<void>): Promise<boolean> {
    for (const eventId of job.left) {
      // After a long pause of this process the key may be in other hands.
      if (performance.now() - job.confirmedAt > job.heartbeatSeconds * 1000)
        await settler.untilWritten(async () => heartbeat.touch())
      if (stopping || job.lost) return false
      await handle(eventId)
      if (job.left.has(eventId)) return false
      if (job.unsettled.at(-1)?.delivered === false) return true
    }
    return false
  }

  async function handleEvent(
    job: ActiveJob,
    eventId: string,
    event: StoredEvent | undefined,
    attempt: number,
  ): Promise<void> {
    if (!slots.tryEnter()) await slots.enter()
    try {
      if (stopping || job.lost) return
      if (event === undefined || hasExpired(event)) {
        const outcome = (event === undefined ? eventNotFound : expiredBefore)(eventId, attempt)
        noteAttempt(outcome)
        finishEvent(job, eventId, outcome)
        return
      }
      if (database.reach !== undefined) await database.reach('worker.handler-begins')
      const running = startAttempt(event, attempt)
      job.running.set(eventId, running)
      const result = await running.result
      if (database.reach !== undefined) await database.reach('worker.handler-done')
      job.running.delete(eventId)
      // Aborted from outside: the event was handed back, or belongs to another worker by now.
      if (job.done || (job.cutShort && result.outcome === 'failed')) return
      const outcome = toOutcome(eventId, attempt, result)
      noteAttempt(outcome)
      finishEvent(job, eventId, outcome)
    } finally {
      slots.leave()
    }
  }

  function noteAttempt(outcome: EventOutcome): void {
    logUndelivered(logger, subscription.name, outcome)
    if (outcome.delivered && outcome.expired === true) return
    handledCount += 1
    if (outcome.delivered) averageMs += (outcome.durationMs - averageMs) / Math.min(handledCount, 20)
  }

  function startAttempt(event: StoredEvent, attempt: number, tx?: HandlerTransaction): RunningAttempt {
    try {
      const shaped = inNewestShape(catalogue, event)
      return runAttempt(subscription, shaped, attempt, logger, parts.publishCaused, tx)
    } catch (thrown) {
      // An upcast threw.
      return { result: Promise.resolve({ outcome: 'failed', thrown }), abort: () => {} }
    }
  }

  function finishEvent(job: ActiveJob, eventId: string, outcome: EventOutcome | undefined): void {
    const weightBefore = weightOf(job)
    if (!job.left.delete(eventId)) return
    pendingCount -= weightBefore - weightOf(job)
    if (outcome !== undefined) job.unsettled.push(outcome)
    if (hasRoom()) fetcher.madeRoom()
  }

  /** Puts what is left of a job back as it came. */
  function handBack(job: ActiveJob): void {
    const handedBack = [...job.left]
    const outcomes = job.unsettled.splice(0)
    job.done = true
    settler.add({ claim: job.claim, outcomes, done: true, handedBack }, () => release(job))
  }

  /** Forgets a job and what is left of it. */
  function release(job: ActiveJob): void {
    job.done = true
    pendingCount -= weightOf(job)
    job.left.clear()
    active.delete(job)
    if (hasRoom()) fetcher.madeRoom()
  }

  /** Once a second: receipts of long batches are written early, and claims are kept alive. */
  function tick(): void {
    const now = performance.now()
    for (const job of active) {
      if (!job.done && job.left.size > 0 && job.unsettled.length > 0 && now - job.startedAt > tickMs) {
        settler.add({ claim: job.claim, outcomes: job.unsettled.splice(0), done: false })
      }
    }
    heartbeat.tick()
  }

  function lose(job: ActiveJob): void {
    if (job.done) return
    logger.warn(
      { subscription: subscription.name, jobId: job.claim.id },
      'another worker has taken a job over: its handlers are aborted',
    )
    job.lost = true
    abortAll(job, 'claim lost')
    release(job)
  }

  function abortAll(job: ActiveJob, reason: AbortReason): void {
    for (const running of job.running.values()) running.abort(reason)
  }

  const heartbeat = createHeartbeat(boss, queue, subscription.heartbeatSeconds, active, lose, logger)
  const ticker = setInterval(tick, tickMs)
  const fetcher = startFetcher({
    boss,
    database,
    queue,
    logger,
    room: () => ({ events: capacity() - pendingCount, jobs: maxActiveJobs - active.size }),
    averageMs: () => averageMs,
    begin,
  })

  async function stop(graceMs: number, relayStopped: Promise<void>): Promise<void> {
    stopping = true
    const deadline = performance.now() + graceMs
    settler.giveUpAt(deadline + abortedHandlersMs)
    await within(deadline, Promise.all([fetcher.stop(), relayStopped]))
    await untilIdle(deadline)
    for (const job of active) {
      job.cutShort = true
      abortAll(job, 'shutdown')
    }
    if (active.size > 0) await database.reach?.('stop.aborted')
    if (runningCount() > 0) await untilIdle(performance.now() + abortedHandlersMs)
    for (const job of active) if (!job.done && job.left.size > 0) handBack(job)
    await settler.idle()
    await database.reach?.('stop.handed-back')
    clearInterval(ticker)
  }

  function runningCount(): number {
    let count = 0
    for (const job of active) count += job.running.size
    return count
  }

  async function untilIdle(deadline: number): Promise<void> {
    while (runningCount() > 0 && performance.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 5))
  }

  return {
    subscriptionId,
    name: subscription.name,
    ordered: subscription.ordered === true,
    get runningCount() {
      return runningCount()
    },
    get isFree() {
      return !stopping && hasRoom()
    },
    wake: () => fetcher.wake(),
    adopt: (jobs, fetchedAt) => jobs.forEach((job) => begin(job, fetchedAt)),
    async recoverKeys() {
      if (stopping) return
      if (await recoverKeys(database, boss, subscription, subscriptionId, logger)) fetcher.wake()
    },
    stop,
  }
}
