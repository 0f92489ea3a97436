import type pg from 'pg'
import type { PgBoss } from 'pg-boss'
import type { FaultHook } from '../../foundation/fault-points.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { isLockTimeout } from '../../outbox/relay/claim.ts'
import { beginSql, type Database, type Executor } from '../../database/database.ts'
import { KeyWriter, type KeysWritten, type OrderedWrites } from './key-writer.ts'
import { afterLoss } from '../settlement/lost-job.ts'
import { forgetOverrunningKeys } from './overrunning-key.ts'
import { insertReceipts, readReceipts } from '../settlement/receipts.ts'
import type { Settlement } from '../settlement/settlement.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import type { FailureOutput, JobClaim } from '../jobs/job-claim.ts'
import type { EventOutcome } from '../attempts/outcome.ts'

/** Whether what is to be settled is the job of a key. */
export function isOrdered({ claim }: Settlement): boolean {
  return claim.data.keyId !== undefined
}

/** How long a settlement waits for a lock that somebody else holds, before the others go on without it. */
const lockTimeoutMs = 500

/** The same where handlers have run in the transaction, and would have to run again: on a busy machine a relay, which locks many keys, may hold one for more than half a second. */
const handlersLockTimeoutMs = 2000

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
    const keys = new KeyWriter(
      client,
      boss,
      database.bossSchema,
      subscription,
      'settle-ordered',
      database.reach,
    )
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
    return keys.write(plan)
  }, `${beginSql}; set local lock_timeout = '${lockTimeoutMs}ms'`)
  await database.reach?.('settle-ordered.committed')
  given.log(logger)
  return given.readyCount
}

/**
 * Writes what becomes of one key, whose job is over, into the open transaction of its handlers: as
 * {@link writeOrderedSettlements}, without the receipts. What is written must not be committed unless the claim `isCurrent`.
 *
 * Locks the key, waiting for two seconds at most, then the job. `'locked'`: somebody else holds the key, and the transaction has failed.
 */
export async function settleKey(
  client: pg.ClientBase,
  boss: PgBoss,
  bossSchema: string,
  subscription: Subscription,
  settlement: Settlement,
  reach: FaultHook | undefined,
): Promise<'locked' | (KeysWritten & { readonly isCurrent: boolean })> {
  const { claim } = settlement
  try {
    // Whatever else is waited for, also at the commit, has no limit in a transaction of handlers.
    await client.query(
      `set local lock_timeout = '${handlersLockTimeoutMs}ms';
       select from bus.ordered_keys where id = ${client.escapeLiteral(claim.data.keyId ?? '')} for update;
       set local lock_timeout = 0`,
    )
  } catch (error) {
    if (isLockTimeout(error)) return 'locked'
    throw error
  }
  const keys = new KeyWriter(client, boss, bossSchema, subscription, 'once-ordered', reach)
  const written = await keys.write(planOrderedWrites([settlement]))
  return { ...written, isCurrent: keys.current.has(claim.id) }
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
    const keys = new KeyWriter(
      client,
      boss,
      database.bossSchema,
      subscription,
      'settle-ordered',
      database.reach,
    )
    const lost = next === -1 ? undefined : afterLoss(claim, subscription)
    await lockKeys(client, [claim])
    await keys.complete([{ claim, doneCount, failed: lost }])
    await database.reach?.('explode-ordered.completed')
    await keys.goOn()
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

/** What settlements of keys mean in receipts, and for each key. */
export function planOrderedWrites(settlements: readonly Settlement[]): OrderedWrites {
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

function isFailure(outcome: EventOutcome): outcome is EventOutcome & { readonly delivered: false } {
  return !outcome.delivered
}
