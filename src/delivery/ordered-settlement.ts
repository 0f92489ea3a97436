import type pg from 'pg'
import type { JobInsert, PgBoss } from 'pg-boss'
import type { FaultHook } from '../events/fault-points.ts'
import type { BusLogger } from '../events/logger.ts'
import { beginSql, type Database, type Executor } from '../outbox/database.ts'
import { inTransaction } from './boss.ts'
import { logBuried, keepFailures, type AttemptFailure } from './failure.ts'
import { handedBackJob } from './handed-back-job.ts'
import { firstRetryDelaySeconds, laterAttemptJob, type JobData, type PastAttempts } from './job.ts'
import { afterLoss, type Loss } from './lost-job.ts'
import { advanceKeys, holdKeys, type HeldKey, type KeyProgress } from './ordered.ts'
import { forgetOverrunningKeys } from './overrunning-key.ts'
import { insertReceipts, readReceipts, type Receipt } from './receipts.ts'
import {
  buryClaim,
  failClaim,
  fence,
  isLastAttempt,
  joinLater,
  replaceClaim,
  type EventOutcome,
  type FailureOutput,
  type JobClaim,
  type LeftToOthers,
  type Settlement,
} from './settlement.ts'
import { queueName, type Subscription } from './subscription.ts'

/** Whether what is to be settled is the job of a key. */
export function isOrdered({ claim }: Settlement): boolean {
  return claim.data.keyId !== undefined
}

/** How long a settlement waits for a lock that somebody else holds, before the others go on without it. */
const lockTimeoutMs = 500

/**
 * Writes settlements of keys' jobs in one transaction: receipts, completions, what becomes of each key, and its next
 * job. Gives the number of jobs that are ready now. Like those of other jobs, it may be repeated.
 *
 * A key goes on only where pg-boss still takes the claim for current: a worker that was presumed dead changes nothing.
 *
 * @throws what {@link isLockTimeout} knows, where somebody else holds the row of a key, or another lock, for long
 */
export async function writeOrderedSettlements(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  settlements: readonly Settlement[],
  logger: BusLogger,
): Promise<number> {
  const plan = planOrderedWrites(settlements)
  const given = await database.transaction(async (client) => {
    const keys = new KeyWriter(client, boss, database.bossSchema, subscription)
    if (plan.receipts.length > 0) {
      await insertReceipts(client, subscriptionId, plan.receipts, true)
      await database.reach?.('settle-ordered.receipts-inserted')
    }
    // Where nothing failed one statement takes them all.
    if (plan.failedSingles.length > 0 || plan.ended.some(({ failed }) => failed !== undefined)) {
      await lockKeys(
        client,
        settlements.map(({ claim }) => claim),
      )
    }
    await forgetOverrunningKeys(
      client,
      settlements.flatMap(({ claim, isNoted }) => (isNoted === true ? [claim] : [])),
    )
    await keys.complete(plan.ended)
    for (const { claim, failed } of plan.failedSingles) await keys.failSingle(claim, failed)
    for (const handedBack of plan.handedBack) await keys.handBack(handedBack)
    await database.reach?.('settle-ordered.completed')
    const readyCount = await keys.goOn(database.reach)
    await database.reach?.('settle-ordered.next-inserted')
    return { readyCount, buried: keys.buried }
  }, `${beginSql}; set local lock_timeout = '${lockTimeoutMs}ms'`)
  await database.reach?.('settle-ordered.committed')
  for (const { eventId, output } of given.buried) logBuried(logger, subscription.name, eventId, output)
  return given.readyCount
}

/** Leaves those settlements whose key's row somebody else holds now. */
export async function withLockedKeys(
  executor: Executor,
  settlements: readonly Settlement[],
): Promise<readonly Settlement[]> {
  const { rows } = await executor.query<{ id: string }>(
    `with free as materialized (select id from bus.ordered_keys where id = any($1::bigint[]) for update skip locked)
     select id from bus.ordered_keys where id = any($1::bigint[]) and id not in (select id from free)`,
    [settlements.map(({ claim }) => claim.data.keyId)],
  )
  const locked = new Set(rows.map(({ id }) => id))
  return settlements.filter(({ claim }) => locked.has(claim.data.keyId ?? ''))
}

/**
 * Ends a key's job whose worker died: its first event without a receipt has an attempt behind it, and all of them go on one
 * by one, so that one that kills its process is found. Gives the event that went to the dead letters instead, if one did.
 */
export async function takeApartOrdered(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  claim: JobClaim,
): Promise<readonly { readonly eventId: string; readonly output: FailureOutput }[]> {
  const { eventIds } = claim.data
  const buried = await database.transaction(async (client) => {
    const delivered = await readReceipts(client, subscriptionId, eventIds)
    const next = eventIds.findIndex((id) => !delivered.has(id))
    const doneCount = next === -1 ? eventIds.length : next
    const keys = new KeyWriter(client, boss, database.bossSchema, subscription)
    const lost = next === -1 ? undefined : afterLoss(claim, subscription)
    await lockKeys(client, [claim])
    await keys.complete([{ claim, doneCount, failed: lost }])
    await database.reach?.('explode-ordered.completed')
    await keys.goOn(database.reach)
    return keys.buried
  })
  await database.reach?.('explode-ordered.committed')
  return buried
}

/**
 * Locks the keys of some jobs, in the order of their hashes: as the relay does that puts events behind them, so that
 * neither waits for a key of the other's with a key in hand.
 */
async function lockKeys(client: pg.ClientBase, claims: readonly JobClaim[]): Promise<void> {
  await client.query(
    'select from bus.ordered_keys where id = any($1::bigint[]) order by subscription_id, key_hash for update',
    [claims.map(({ data }) => data.keyId)],
  )
}

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

interface OrderedWrites {
  readonly receipts: Receipt[]
  readonly ended: EndedJob[]
  /** Jobs of one event: pg-boss decides between retry and dead letter, unless final. */
  readonly failedSingles: { readonly claim: JobClaim; readonly failed: FailedAttempt }[]
  /** Jobs of which nothing was begun go back as they came. */
  readonly handedBack: HandedBack[]
}

function planOrderedWrites(settlements: readonly Settlement[]): OrderedWrites {
  const plan: OrderedWrites = { receipts: [], ended: [], failedSingles: [], handedBack: [] }
  for (const settlement of settlements) {
    const { claim, outcomes, done, handedBack = [], delaySeconds = 0, misses, lineKey, left } = settlement
    for (const outcome of outcomes) {
      if (outcome.delivered) {
        const { eventId, attempt: attempts, durationMs, erased = false, expired = erased } = outcome
        plan.receipts.push({ eventId, attempts, durationMs, expired, erased })
      }
    }
    if (!done) continue
    const { eventIds } = claim.data
    const failed = outcomes.find(isFailure)
    if (failed !== undefined && eventIds.length === 1) {
      plan.failedSingles.push({ claim, failed })
    } else if (failed !== undefined) {
      plan.ended.push({ claim, doneCount: eventIds.indexOf(failed.eventId), failed })
    } else if (handedBack.length > 0 && handedBack.length === eventIds.length) {
      plan.handedBack.push({ claim, delaySeconds, misses, lineKey, left })
    } else {
      const [firstLeft] = handedBack
      plan.ended.push({
        claim,
        doneCount: firstLeft === undefined ? eventIds.length : eventIds.indexOf(firstLeft),
      })
    }
  }
  return plan
}

/** The job of an event that is tried again, or buried, alone. */
type LaterJob = JobInsert<JobData> & {
  readonly id: string
  readonly data: JobData & { readonly keyId: string }
}

function isFailure(outcome: EventOutcome): outcome is EventOutcome & { readonly delivered: false } {
  return !outcome.delivered
}

/** Writes what becomes of keys, in one transaction. */
class KeyWriter {
  readonly buried: { readonly eventId: string; readonly output: FailureOutput }[] = []
  readonly #client: pg.ClientBase
  readonly #boss: PgBoss
  readonly #bossSchema: string
  readonly #subscription: Subscription
  readonly #queue: string
  readonly #progress: KeyProgress[] = []
  readonly #holds: HeldKey[] = []
  /** Jobs for single events of keys that are held for them. */
  readonly #laterJobs: LaterJob[] = []
  #readyCount = 0

  constructor(client: pg.ClientBase, boss: PgBoss, bossSchema: string, subscription: Subscription) {
    this.#bossSchema = bossSchema
    this.#client = client
    this.#boss = boss
    this.#subscription = subscription
    this.#queue = queueName(subscription.name)
  }

  async complete(ended: readonly EndedJob[]): Promise<void> {
    if (ended.length === 0) return
    const { settled = [] } = (await this.#boss.complete(
      this.#queue,
      ended.map(({ claim }) => fence(claim)),
      null,
      inTransaction(this.#client),
    )) as { settled?: readonly string[] }
    const current = new Set(settled)
    for (const { claim, doneCount, failed } of ended) {
      if (!current.has(claim.id)) continue
      if (failed === undefined) this.#progress.push(progressOf(claim, doneCount))
      else if ('past' in failed) await this.#goOnAfterLoss(claim, doneCount, failed)
      else await this.#goOnAfterFailure(claim, doneCount, failed)
    }
  }

  /** A retry keeps the job and its key. After the last attempt, the key's rule decides. */
  async failSingle(claim: JobClaim, { failure, final, retryAfterSeconds }: FailedAttempt): Promise<void> {
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

  async handBack({ claim, ...how }: HandedBack): Promise<void> {
    const { delaySeconds } = how
    const job = handedBackJob(this.#subscription, claim, claim.data.eventIds, how)
    const isReplaced = await replaceClaim(this.#client, this.#boss, this.#queue, claim, job)
    if (isReplaced && delaySeconds === 0) this.#readyCount += 1
  }

  /** Writes what becomes of the keys, and inserts their next jobs. Gives the number of jobs that are ready now. */
  async goOn(reach: FaultHook | undefined): Promise<number> {
    const held = await holdKeys(this.#client, this.#holds)
    if (this.#holds.length > 0) await reach?.('settle-ordered.held')
    const later = this.#laterJobs.filter(({ data }) => held.has(data.keyId))
    const next = await advanceKeys(this.#client, this.#subscription, this.#progress)
    if (this.#progress.length > 0) await reach?.('settle-ordered.advanced')
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
    this.#holds.push({ ...progressOf(claim, doneCount), state: 'flowing', nextJobId: job.id, singlyCount })
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
