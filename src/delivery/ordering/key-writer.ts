import type pg from 'pg'
import type { JobInsert, PgBoss } from 'pg-boss'
import type { FaultHook } from '../../foundation/fault-points.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { inTransaction } from '../jobs/boss.ts'
import { logBuried, keepFailures, type AttemptFailure } from '../attempts/failure.ts'
import { handedBackJob } from '../jobs/requeued-job.ts'
import { laterAttemptJob, type JobData, type PastAttempts } from '../jobs/job.ts'
import type { Loss } from '../settlement/lost-job.ts'
import { advanceKeys, holdKeys, type HeldKey, type KeyProgress } from './ordered-keys.ts'
import type { Receipt } from '../settlement/receipts.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import {
  fence,
  isLastAttempt,
  type FailureOutput,
  type JobClaim,
  type LeftToOthers,
} from '../jobs/job-claim.ts'
import { queueName } from '../jobs/queues.ts'
import { buryClaim, failClaim, joinLater, replaceClaim } from '../jobs/claim-operations.ts'
import { firstRetryDelaySeconds } from '../subscriptions/retry-delays.ts'

/** How the event went at which a job of a key stopped. */
interface FailedAttempt {
  readonly failure: AttemptFailure
  readonly final: boolean
  readonly retryAfterSeconds?: number
}

/** A job of a key that is over, and the event it stopped at, if any. */
interface EndedJob {
  readonly claim: JobClaim
  readonly doneCount: number
  /** A loss: the worker died, and nothing is known of the handler. */
  readonly failed?: FailedAttempt | Loss | undefined
}

interface HandedBack {
  readonly claim: JobClaim
  readonly delaySeconds: number
  readonly misses: number | undefined
  readonly lineKey: string | undefined
  readonly left: LeftToOthers | undefined
}

export interface OrderedWrites {
  readonly receipts: Receipt[]
  readonly ended: EndedJob[]
  /** Jobs of one event: pg-boss decides between retry and dead letter, unless final. */
  readonly failedSingles: { readonly claim: JobClaim; readonly failed: FailedAttempt }[]
  /** Jobs of which nothing was begun go back as they came. */
  readonly handedBack: HandedBack[]
}

/** The job of an event that is tried again, or buried, alone. */
type LaterJob = JobInsert<JobData> & {
  readonly id: string
  readonly data: JobData & { readonly keyId: string }
}

/** What is to be done once what was written of keys is committed. */
export interface KeysWritten {
  /** Jobs that are ready then. */
  readonly readyCount: number
  readonly log: (logger: BusLogger) => void
}

/** Writes what becomes of keys, in one transaction. */
export class KeyWriter {
  readonly buried: { readonly eventId: string; readonly output: FailureOutput }[] = []
  /** The jobs that were completed: their claims were current. */
  readonly current = new Set<string>()
  readonly #client: pg.ClientBase
  readonly #boss: PgBoss
  readonly #bossSchema: string
  readonly #subscription: Subscription
  readonly #queue: string
  readonly #progress: KeyProgress[] = []
  readonly #holds: HeldKey[] = []
  /** Jobs for single events of keys that are held for them. */
  readonly #laterJobs: LaterJob[] = []
  readonly #protocol: 'settle-ordered' | 'once-ordered'
  readonly #reach: FaultHook | undefined
  #readyCount = 0

  /** @param protocol - the names of its fault points */
  constructor(
    client: pg.ClientBase,
    boss: PgBoss,
    bossSchema: string,
    subscription: Subscription,
    protocol: 'settle-ordered' | 'once-ordered',
    reach: FaultHook | undefined,
  ) {
    this.#protocol = protocol
    this.#reach = reach
    this.#bossSchema = bossSchema
    this.#client = client
    this.#boss = boss
    this.#subscription = subscription
    this.#queue = queueName(subscription.name)
  }

  /** Writes what is planned, but for the receipts. */
  async write({ ended, failedSingles, handedBack }: OrderedWrites): Promise<KeysWritten> {
    await this.complete(ended)
    for (const { claim, failed } of failedSingles) await this.#failSingle(claim, failed)
    for (const back of handedBack) await this.#handBack(back)
    await this.#reach?.(`${this.#protocol}.completed`)
    const readyCount = await this.goOn()
    await this.#reach?.(`${this.#protocol}.next-inserted`)
    return {
      readyCount,
      log: (logger) => {
        for (const { eventId, output } of this.buried)
          logBuried(logger, this.#subscription.name, eventId, output)
      },
    }
  }

  async complete(ended: readonly EndedJob[]): Promise<void> {
    if (ended.length === 0) return
    const { settled = [] } = (await this.#boss.complete(
      this.#queue,
      ended.map(({ claim }) => fence(claim)),
      null,
      inTransaction(this.#client),
    )) as { settled?: readonly string[] }
    for (const id of settled) this.current.add(id)
    for (const { claim, doneCount, failed } of ended) {
      if (!this.current.has(claim.id)) continue
      if (failed === undefined) this.#progress.push(progressOf(claim, doneCount))
      else if ('past' in failed) await this.#goOnAfterLoss(claim, doneCount, failed)
      else await this.#goOnAfterFailure(claim, doneCount, failed)
    }
  }

  /** A retry keeps the job and its key. After the last attempt, the key's rule decides. */
  async #failSingle(claim: JobClaim, { failure, final, retryAfterSeconds }: FailedAttempt): Promise<void> {
    const failures = keepFailures([...claim.failures, failure])
    const output = { attempts: failure.attempt, final, failures }
    if (final || isLastAttempt(claim)) {
      if (!(await buryClaim(this.#client, this.#boss, this.#queue, claim, output))) return
      this.#giveUp(claim, 0, claim.data.eventIds[0] ?? '', output)
      return
    }
    const failed = { claim, output, final, retryAfterSeconds }
    if (!(await failClaim(this.#client, this.#boss, this.#queue, failed))) return
    await joinLater(this.#client, this.#bossSchema, this.#queue, [claim])
    const { delaySeconds, backoff } = this.#subscription.retry
    if (retryAfterSeconds === undefined && delaySeconds === 0 && !backoff) this.#readyCount += 1
  }

  async #handBack({ claim, ...how }: HandedBack): Promise<void> {
    const { delaySeconds } = how
    const job = handedBackJob(this.#subscription, claim, claim.data.eventIds, how)
    const isReplaced = await replaceClaim(this.#client, this.#boss, this.#queue, claim, job)
    if (isReplaced && delaySeconds === 0) this.#readyCount += 1
  }

  /** Writes what becomes of the keys, and inserts their next jobs. Gives the number of jobs that are ready now. */
  async goOn(): Promise<number> {
    const held = await holdKeys(this.#client, this.#holds)
    if (this.#holds.length > 0) await this.#reach?.(`${this.#protocol}.held`)
    const later = this.#laterJobs.filter(({ data }) => held.has(data.keyId))
    const next = await advanceKeys(this.#client, this.#subscription, this.#progress)
    if (this.#progress.length > 0) await this.#reach?.(`${this.#protocol}.advanced`)
    const jobs = [...later, ...next]
    if (jobs.length > 0) await this.#boss.insert(this.#queue, jobs, inTransaction(this.#client))
    const readyAtOnce = later.filter(({ startAfter }) => startAfter === 0)
    return this.#readyCount + readyAtOnce.length + next.length
  }

  /** The first attempt at an event of several. */
  async #goOnAfterFailure(
    claim: JobClaim,
    doneCount: number,
    { failure, final, retryAfterSeconds }: FailedAttempt,
  ): Promise<void> {
    const failures = [failure]
    const { retry } = this.#subscription
    const delaySeconds = retryAfterSeconds ?? firstRetryDelaySeconds(retry)
    const job = this.#laterJob(claim, doneCount, { attempts: 1, failures }, delaySeconds)
    if (final || retry.maxAttempts === 1)
      await this.#bury(claim, doneCount, job, { attempts: failure.attempt, final, failures })
    else this.#tryAgain(claim, doneCount, job)
  }

  async #goOnAfterLoss(claim: JobClaim, doneCount: number, loss: Loss): Promise<void> {
    const job = { ...this.#laterJob(claim, doneCount, loss.past, 0), retryLimit: loss.retryLimit }
    if (loss.output !== undefined) await this.#bury(claim, doneCount, job, loss.output)
    else this.#tryAgain(claim, doneCount, job, claim.data.eventIds.length)
  }

  #tryAgain(claim: JobClaim, doneCount: number, job: LaterJob, singlyCount?: number): void {
    this.#laterJobs.push(job)
    this.#holds.push({ ...progressOf(claim, doneCount), state: 'active', nextJobId: job.id, singlyCount })
  }

  async #bury(claim: JobClaim, doneCount: number, job: LaterJob, output: FailureOutput): Promise<void> {
    const options = inTransaction(this.#client)
    await this.#boss.insert(this.#queue, [{ ...job, startAfter: 0, retryLimit: 0 }], options)
    await this.#boss.fail(this.#queue, job.id, output, options)
    this.#giveUp(claim, doneCount, claim.data.eventIds[doneCount] ?? '', output)
  }

  #giveUp(claim: JobClaim, doneCount: number, eventId: string, output: FailureOutput): void {
    this.buried.push({ eventId, output })
    const rule = this.#subscription.onKeyFailure ?? 'block'
    if (rule === 'skip') {
      this.#progress.push(progressOf(claim, doneCount + 1))
      return
    }
    this.#holds.push({
      ...progressOf(claim, doneCount),
      state: rule === 'block' ? 'blocked' : 'parked',
      failedEventId: eventId,
      attempts: output.attempts,
      failures: output.failures,
    })
  }

  #laterJob(claim: JobClaim, index: number, past: PastAttempts, delaySeconds: number): LaterJob {
    const { eventIds, keyId = '' } = claim.data
    const job = laterAttemptJob(claim.id, eventIds[index] ?? '', past, this.#subscription, delaySeconds)
    return { ...job, data: { ...job.data, keyId } }
  }
}

function progressOf({ id, data: { keyId = '', eventIds } }: JobClaim, doneCount: number): KeyProgress {
  return { keyId, jobId: id, eventId: eventIds[0] ?? '', doneCount }
}
