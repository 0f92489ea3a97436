import type pg from 'pg'
import type { JobInsert, PgBoss } from 'pg-boss'
import { queryPrepared } from '../../database/prepared.ts'
import { inTransaction } from './boss.ts'
import { laterPriority, type JobData } from './job.ts'
import { type JobClaim, type FailureOutput, fence } from './job-claim.ts'

/** Fails the job of a single event that is to be tried again. A delay that the handler asked for is set on the waiting job. */
export async function failClaim(
  client: pg.ClientBase,
  boss: PgBoss,
  queue: string,
  { claim, output, retryAfterSeconds }: FailedClaim,
): Promise<boolean> {
  const options = inTransaction(client)
  const failed = (await boss.fail(queue, [fence(claim)], output, options)) as { affected?: number }
  if (failed.affected !== 1) return false
  if (retryAfterSeconds !== undefined)
    await boss.update(queue, undefined, { id: claim.id, startAfter: retryAfterSeconds, ...options })
  return true
}

export interface FailedClaim {
  readonly claim: JobClaim
  readonly output: FailureOutput
  readonly final: boolean
  readonly retryAfterSeconds: number | undefined
}

/** From its first failure on, the job of a single event stands among those that are tried again, and no longer in its place in the line. */
export async function joinLater(
  client: pg.ClientBase,
  bossSchema: string,
  queue: string,
  claims: readonly JobClaim[],
): Promise<void> {
  const ids = claims.flatMap(({ id, priority }) => (priority === laterPriority ? [] : [id]))
  if (ids.length === 0) return
  await queryPrepared(
    client,
    `update ${bossSchema}.job set priority = ${laterPriority} where name = $1 and id = any($2::uuid[]) and state = 'retry'`,
    [queue, ids],
  )
}

/** Sends a single event to the dead letters: pg-boss alone never would. False, and nothing is written, when the claim was lost. */
export async function buryClaim(
  client: pg.ClientBase,
  boss: PgBoss,
  queue: string,
  claim: JobClaim,
  output: FailureOutput,
): Promise<boolean> {
  const data = { ...claim.data, attempts: output.attempts, failures: output.failures }
  const replaced = await replaceClaim(client, boss, queue, claim, {
    id: claim.id,
    data,
    retryLimit: 0,
    priority: laterPriority,
  })
  if (replaced) await boss.fail(queue, claim.id, output, inTransaction(client))
  return replaced
}

/** Puts another job in the place of a claimed one. False, and nothing is written, when the claim was lost. */
export async function replaceClaim(
  client: pg.ClientBase,
  boss: PgBoss,
  queue: string,
  claim: JobClaim,
  job: JobInsert<JobData>,
): Promise<boolean> {
  const options = inTransaction(client)
  const deleted = (await boss.deleteJob(queue, [fence(claim)], options)) as { affected?: number }
  if (deleted.affected !== 1) return false
  await boss.insert(queue, [job], options)
  return true
}
