import type pg from 'pg'
import type { JobInsert } from 'pg-boss'
import type { JobClaim } from '../jobs/job-claim.ts'
import { JobWriter, type DeadLettered } from '../jobs/job-writer.ts'
import { retryJob, type JobData, type PastAttempts } from '../jobs/job.ts'
import { requeuedJob, type RequeueOptions } from '../jobs/requeued-job.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import {
  advanceKeys,
  afterDeadLetter,
  failKeys,
  type KeyProgress,
  type FailedKey,
} from '../ordering/ordered-keys.ts'
import { firstRetryDelaySeconds } from '../subscriptions/retry-delays.ts'
import type { Loss } from './lost-worker.ts'
import { recordFailures, type FailureRecord } from '../ledger/failures.ts'
import {
  failureOutput,
  failureRecord,
  isGivenUp,
  retryAfterSeconds,
  type FailedOutcome,
  type JobReceipts,
  type Written,
} from './settlement.ts'

/** A job of a key that is over, and the event it stopped at, if it did. */
interface EndedJob {
  readonly claim: JobClaim
  readonly doneCount: number
  readonly failed?: FailedOutcome | undefined
}

/** The writes that settlements of keys' jobs need. */
export interface KeyWrites {
  readonly receipts: JobReceipts[]
  readonly ended: EndedJob[]
  /** Jobs of one event: pg-boss runs them again, or they become dead letters. */
  readonly failedSingles: { readonly claim: JobClaim; readonly failed: FailedOutcome }[]
  /** Jobs of which nothing was started are requeued as they came. */
  readonly requeued: { readonly claim: JobClaim; readonly options: RequeueOptions }[]
}

/** The job of a key's event that is tried again, or a dead letter, alone. */
type SingleJob = JobInsert<JobData> & {
  readonly id: string
  readonly data: JobData & { readonly keyId: string }
}

/** Writes what happens to keys when their jobs are over, in one transaction. */
export class KeyWriter {
  /** The jobs that were completed: their claims were current. */
  readonly completedIds = new Set<string>()
  readonly #client: pg.ClientBase
  readonly #context: SubscriptionContext
  readonly #jobs: JobWriter
  readonly #protocol: 'settle-ordered' | 'exactly-once-ordered'
  readonly #advanced: KeyProgress[] = []
  readonly #stopped: FailedKey[] = []
  /** Jobs for single events of keys that have stopped at them. */
  readonly #singles: SingleJob[] = []
  readonly #deadLetters: (DeadLettered & { readonly keyId: string | undefined })[] = []
  readonly #failures: FailureRecord[] = []
  #readyCount = 0

  /** @param protocol - the names of its fault points */
  constructor(
    client: pg.ClientBase,
    context: SubscriptionContext,
    protocol: 'settle-ordered' | 'exactly-once-ordered',
  ) {
    this.#client = client
    this.#context = context
    this.#jobs = new JobWriter(client, context)
    this.#protocol = protocol
  }

  /** Writes what is planned, except the receipts. */
  async write({ ended, failedSingles, requeued }: KeyWrites): Promise<Written> {
    const { faultPoint } = this.#context.database
    await this.#end(ended)
    for (const { claim, failed } of failedSingles) await this.#failSingle(claim, failed)
    for (const { claim, options } of requeued) await this.#requeue(claim, options)
    await faultPoint?.(`${this.#protocol}.completed`)
    const written = await this.#writeKeys()
    await faultPoint?.(`${this.#protocol}.next-inserted`)
    return written
  }

  /** Ends a job whose worker was lost. */
  async writeLoss(claim: JobClaim, doneCount: number, loss: Loss | undefined): Promise<Written> {
    if (await this.#complete(claim)) {
      if (loss === undefined) this.#advanced.push(progressOf(claim, doneCount))
      else await this.#continueAfterLoss(claim, doneCount, loss)
    }
    await this.#context.database.faultPoint?.('recover-ordered-job.completed')
    return this.#writeKeys()
  }

  async #complete(...claims: readonly JobClaim[]): Promise<boolean> {
    if (claims.length === 0) return false
    for (const id of await this.#jobs.complete(claims)) this.completedIds.add(id)
    return this.completedIds.size > 0
  }

  async #end(ended: readonly EndedJob[]): Promise<void> {
    await this.#complete(...ended.map(({ claim }) => claim))
    for (const { claim, doneCount, failed } of ended) {
      if (!this.completedIds.has(claim.id)) continue
      if (failed === undefined) this.#advanced.push(progressOf(claim, doneCount))
      else await this.#continueAfterFailure(claim, doneCount, failed)
    }
  }

  /** A retry keeps the job and its key. After the last attempt, the rule of the subscription decides. */
  async #failSingle(claim: JobClaim, failed: FailedOutcome): Promise<void> {
    const output = failureOutput(claim, failed)
    const { retry } = this.#context.subscription
    const { eventId } = failed
    if (isGivenUp(claim, retry, failed)) {
      if (await this.#jobs.deadLetter(claim, output))
        this.#onDeadLetter(claim, 0, { eventId, output }, failureRecord(failed, 'dead', claim.id))
      return
    }
    const delaySeconds = retryAfterSeconds(claim, retry, failed)
    if (!(await this.#jobs.retry({ claim, output, retryAfterSeconds: delaySeconds }))) return
    this.#failures.push(failureRecord(failed, 'retrying', claim.id))
    await this.#jobs.rankAsRetries([claim])
    const isReady =
      delaySeconds === undefined ? retry.delaySeconds === 0 && !retry.backoff : delaySeconds === 0
    if (isReady) this.#readyCount += 1
  }

  async #requeue(claim: JobClaim, options: RequeueOptions): Promise<void> {
    const job = requeuedJob(this.#context.subscription, claim, claim.data.eventIds, options)
    const isReplaced = await this.#jobs.replace(claim, job)
    if (isReplaced && (options.delaySeconds ?? 0) === 0) this.#readyCount += 1
  }

  /** Writes the keys, and inserts their next jobs. */
  async #writeKeys(): Promise<Written> {
    const { faultPoint } = this.#context.database
    const stillTheirs = await failKeys(this.#client, this.#stopped)
    if (this.#stopped.length > 0) await faultPoint?.(`${this.#protocol}.keys-failed`)
    const singles = this.#singles.filter(({ data }) => stillTheirs.has(data.keyId))
    const next = await advanceKeys(this.#client, this.#context.subscription, this.#advanced)
    if (this.#advanced.length > 0) await faultPoint?.(`${this.#protocol}.keys-advanced`)
    await this.#jobs.insert([...singles, ...next])
    const holdsKey = ({ keyId = '' }: { readonly keyId?: string | undefined }): boolean =>
      stillTheirs.has(keyId)
    await recordFailures(
      this.#client,
      this.#context,
      // A dead letter that was redriven past its key fails again without holding it.
      this.#failures.map((record) =>
        record.state === 'retrying' || holdsKey(record) ? record : { ...record, state: 'dead' },
      ),
    )
    if (this.#failures.length > 0) await faultPoint?.(`${this.#protocol}.failures-recorded`)
    const readySingles = singles.filter(({ startAfter }) => startAfter === 0)
    return {
      readyCount: this.#readyCount + readySingles.length + next.length,
      deadLetters: this.#deadLetters.map((letter) =>
        holdsKey(letter) ? letter : { ...letter, keyState: undefined },
      ),
    }
  }

  /** The first attempt at one of several events has failed. */
  async #continueAfterFailure(claim: JobClaim, doneCount: number, failed: FailedOutcome): Promise<void> {
    const { retry } = this.#context.subscription
    const { failure, retryAfterSeconds: delaySeconds = firstRetryDelaySeconds(retry) } = failed
    const job = this.#singleJob(claim, doneCount, { attempts: 1, failures: [failure] }, delaySeconds)
    if (isGivenUp(claim, retry, failed))
      await this.#deadLetter(
        claim,
        doneCount,
        job,
        failureOutput(claim, failed),
        failureRecord(failed, 'dead', job.id),
      )
    else this.#tryAgain(claim, doneCount, job, failureRecord(failed, 'retrying', job.id))
  }

  async #continueAfterLoss(claim: JobClaim, doneCount: number, loss: Loss): Promise<void> {
    const job = { ...this.#singleJob(claim, doneCount, loss.past, 0), retryLimit: loss.retryLimit }
    const eventId = claim.data.eventIds[doneCount] ?? ''
    const failure = loss.past.failures.at(-1)
    const record = failure && { eventId, failure, state: 'retrying' as const, jobId: job.id }
    if (loss.output !== undefined)
      await this.#deadLetter(claim, doneCount, job, loss.output, record && { ...record, state: 'dead' })
    else this.#tryAgain(claim, doneCount, job, record, claim.data.eventIds.length)
  }

  #tryAgain(
    claim: JobClaim,
    doneCount: number,
    job: SingleJob,
    record: FailureRecord | undefined,
    singlyCount?: number,
  ): void {
    this.#singles.push(job)
    if (record !== undefined) this.#failures.push(record)
    this.#stopped.push({ ...progressOf(claim, doneCount), state: 'active', nextJobId: job.id, singlyCount })
  }

  async #deadLetter(
    claim: JobClaim,
    doneCount: number,
    job: SingleJob,
    output: DeadLettered['output'],
    record: FailureRecord | undefined,
  ): Promise<void> {
    await this.#jobs.insertDeadLetter(job, output)
    this.#onDeadLetter(claim, doneCount, { eventId: claim.data.eventIds[doneCount] ?? '', output }, record)
  }

  #onDeadLetter(
    claim: JobClaim,
    doneCount: number,
    deadLettered: DeadLettered,
    record: FailureRecord | undefined,
  ): void {
    const { onKeyFailure } = this.#context.subscription
    const { eventId, output } = deadLettered
    const change = afterDeadLetter(onKeyFailure, progressOf(claim, doneCount), eventId, output)
    if ('advanced' in change) this.#advanced.push(change.advanced)
    else this.#stopped.push(change.stopped)
    const state = 'advanced' in change || change.stopped.state === 'active' ? 'dead' : change.stopped.state
    this.#deadLetters.push({
      ...deadLettered,
      tenantId: record?.tenantId,
      type: record?.type,
      durationMs: record?.durationMs,
      keyState: state === 'dead' ? undefined : state,
      keyId: claim.data.keyId,
    })
    if (record !== undefined) this.#failures.push({ ...record, state, keyId: claim.data.keyId })
  }

  #singleJob(claim: JobClaim, index: number, past: PastAttempts, delaySeconds: number): SingleJob {
    const { eventIds, keyId = '' } = claim.data
    const job = retryJob(claim, eventIds[index] ?? '', past, this.#context.subscription, delaySeconds)
    return { ...job, data: { ...job.data, keyId } }
  }
}

function progressOf({ id, data: { keyId = '', eventIds } }: JobClaim, doneCount: number): KeyProgress {
  return { keyId, jobId: id, eventId: eventIds[0] ?? '', doneCount }
}
