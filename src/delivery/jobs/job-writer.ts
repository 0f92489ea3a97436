import type pg from 'pg'
import type { JobInsert } from 'pg-boss'
import { queryPrepared } from '../../database/prepared.ts'
import { inTransaction } from './boss.ts'
import { fence, type FailureOutput, type JobClaim } from './job-claim.ts'
import { retryPriority, type JobData } from './job.ts'
import type { SubscriptionContext } from './subscription-context.ts'

/** A job of one event that has failed and is to be tried again. */
export interface FailedClaim {
  readonly claim: JobClaim
  readonly output: FailureOutput
  /** When the handler asked for a delay. */
  readonly retryAfterSeconds: number | undefined
}

/** What the settling methods of pg-boss answer. */
interface SettledJobs {
  readonly settled?: readonly string[]
}

/**
 * Writes jobs of one queue in an open transaction. What ends a claimed job is refused by pg-boss once another attempt at it has
 * begun, so a worker that was presumed dead changes nothing.
 */
export class JobWriter {
  readonly #client: pg.ClientBase
  readonly #context: Pick<SubscriptionContext, 'boss' | 'queue' | 'database'>

  constructor(client: pg.ClientBase, context: Pick<SubscriptionContext, 'boss' | 'queue' | 'database'>) {
    this.#client = client
    this.#context = context
  }

  async insert(jobs: readonly JobInsert<JobData>[]): Promise<void> {
    const { boss, queue } = this.#context
    if (jobs.length > 0) await boss.insert(queue, [...jobs], inTransaction(this.#client))
  }

  /** Completes jobs. Returns the ids of those whose claim was current. */
  async complete(claims: readonly JobClaim[]): Promise<ReadonlySet<string>> {
    const { boss, queue } = this.#context
    const { settled = [] } = (await boss.complete(
      queue,
      claims.map(fence),
      null,
      inTransaction(this.#client),
    )) as SettledJobs
    return new Set(settled)
  }

  /** Fails a job that pg-boss is to run again. Returns false, and writes nothing, when the claim was lost. */
  async retry({ claim, output, retryAfterSeconds }: FailedClaim): Promise<boolean> {
    const { boss, queue } = this.#context
    const options = inTransaction(this.#client)
    const { settled = [] } = (await boss.fail(queue, [fence(claim)], output, options)) as SettledJobs
    if (settled.length === 0) return false
    if (retryAfterSeconds !== undefined)
      await boss.update(queue, undefined, { id: claim.id, startAfter: retryAfterSeconds, ...options })
    return true
  }

  /** Sets the priority of jobs that have failed for the first time to that of retries. */
  async rankAsRetries(claims: readonly JobClaim[]): Promise<void> {
    const ids = claims.flatMap(({ id, priority }) => (priority === retryPriority ? [] : [id]))
    if (ids.length === 0) return
    await queryPrepared(
      this.#client,
      `update ${this.#context.database.bossSchema}.job set priority = ${retryPriority} where name = $1 and id = any($2::uuid[]) and state = 'retry'`,
      [this.#context.queue, ids],
    )
  }

  /**
   * Makes a claimed job of one event a dead letter: by itself pg-boss never would, see `lossAllowance`. Returns false, and writes
   * nothing, when the claim was lost.
   */
  async deadLetter(claim: JobClaim, output: FailureOutput): Promise<boolean> {
    const data = { ...claim.data, attempts: output.attempts, failures: output.failures }
    const job = { id: claim.id, data, retryLimit: 0, priority: retryPriority }
    const replaced = await this.replace(claim, job)
    if (replaced) await this.#fail(claim.id, output)
    return replaced
  }

  /** Inserts a job that is a dead letter at once: for one event of a job that held several. */
  async insertDeadLetter(
    job: JobInsert<JobData> & { readonly id: string },
    output: FailureOutput,
  ): Promise<void> {
    await this.insert([{ ...job, startAfter: 0, retryLimit: 0 }])
    await this.#fail(job.id, output)
  }

  /** Puts another job in the place of a claimed one. Returns false, and writes nothing, when the claim was lost. */
  async replace(claim: JobClaim, job: JobInsert<JobData>): Promise<boolean> {
    const { boss, queue } = this.#context
    const deleted = (await boss.deleteJob(queue, [fence(claim)], inTransaction(this.#client))) as {
      affected?: number
    }
    if (deleted.affected !== 1) return false
    await this.insert([job])
    return true
  }

  /** Whether a claim is current, and locks its job, so that it stays current until the transaction ends. */
  async lock(claim: JobClaim): Promise<boolean> {
    return isCurrent(this.#client, this.#context, claim, 'for update')
  }

  /** The ids of jobs that exist, whatever has become of them. A server crash may have undone the claim that inserted a job. */
  async findExisting(claims: readonly JobClaim[]): Promise<ReadonlySet<string>> {
    if (claims.length === 0) return new Set()
    const { rows } = await this.#client.query<{ id: string }>(
      `select id from ${this.#context.database.bossSchema}.job where name = $1 and id = any($2::uuid[])`,
      [this.#context.queue, claims.map(({ id }) => id)],
    )
    return new Set(rows.map(({ id }) => id))
  }

  async #fail(id: string, output: FailureOutput): Promise<void> {
    const { boss, queue } = this.#context
    await boss.fail(queue, id, output, inTransaction(this.#client))
  }
}

/** Whether a claim is the newest one of its job. */
export async function isCurrent(
  executor: Pick<pg.ClientBase, 'query'> | SubscriptionContext['database'],
  { database, queue }: Pick<SubscriptionContext, 'queue' | 'database'>,
  { id, retryCount }: JobClaim,
  lock: '' | 'for update' = '',
): Promise<boolean> {
  const { rows } = await (executor as SubscriptionContext['database']).query(
    `select 1 from ${database.bossSchema}.job where name = $1 and id = $2 and state = 'active' and retry_count = $3 ${lock}`,
    [queue, id, retryCount],
  )
  return rows.length === 1
}

/** An event that has become a dead letter, and how it failed. */
export interface DeadLettered {
  readonly eventId: string
  readonly output: FailureOutput
  /** These three if they are known. */
  readonly tenantId?: string | undefined
  readonly type?: string | undefined
  /** Of the last handler. */
  readonly durationMs?: number | undefined
  /** What it does to its key, if it holds one. */
  readonly keyState?: 'blocked' | 'parked' | undefined
}

/** Logs events that have become dead letters, after the commit. */
export function logDeadLetters(
  { logger, subscription }: Pick<SubscriptionContext, 'logger' | 'subscription'>,
  deadLetters: readonly DeadLettered[],
): void {
  for (const { eventId, output, tenantId, type, durationMs, keyState } of deadLetters) {
    const last = output.failures.at(-1)
    logger.error(
      {
        subscription: subscription.name,
        id: eventId,
        type,
        tenantId,
        attempts: output.attempts,
        durationMs: durationMs === undefined ? undefined : Math.round(durationMs),
        ...(keyState === undefined ? {} : { keyState }),
        errorName: last?.name,
        errorCode: last?.code,
        reason: last?.message,
      },
      'an event went to the dead letters',
    )
  }
}
