import type pg from 'pg'
import { beginSql, type Executor } from '../../database/database.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import { JobWriter } from '../jobs/job-writer.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import { unmarkOverrunningKeys } from '../ordering/overrunning-key.ts'
import { KeyWriter, type KeyWrites } from './key-writer.ts'
import { afterWorkerLoss } from './lost-worker.ts'
import { readReceipts } from '../ledger/receipts.ts'
import { insertNewReceipts, writeReceipts } from './write-receipts.ts'
import {
  isFailure,
  receiptsOf,
  type Settlement,
  ClaimLost,
  KeyLocked,
  type SettlementWriter,
  type Written,
} from './settlement.ts'
import { isLockTimeout } from '../../database/database-errors.ts'

/** How long a settlement waits for a lock that another session holds, before the others are written without it. */
const lockTimeoutMs = 500

/**
 * The same in a transaction of handlers, which would have to run again: on a busy machine a relay, which locks many keys, may hold
 * one for more than half a second.
 */
const handlersLockTimeoutMs = 2000

/**
 * Writes the outcomes of keys' jobs: completions, what happens to each key, its next job, and receipts. Whether a failed event blocks its key:
 * `afterDeadLetter` in ../ordering/ordered-keys.ts.
 *
 * `write` rejects with an error that {@link isLockTimeout} knows where another session holds the row of a key, or another lock, for
 * long.
 */
export function createKeySettlementWriter(context: SubscriptionContext): SettlementWriter {
  const { database, subscription, subscriptionId } = context
  const { faultPoint } = database

  async function write(settlements: readonly Settlement[]): Promise<Written> {
    const plan = planKeyWrites(settlements)
    const written = await database.transaction(async (client) => {
      // Where nothing failed, one statement locks them all.
      if (plan.failedSingles.length > 0 || plan.ended.some(({ failed }) => failed !== undefined)) {
        await lockKeys(
          client,
          settlements.map(({ claim }) => claim),
        )
      }
      await unmarkOverrunningKeys(
        client,
        settlements.flatMap(({ claim, isMarked }) => (isMarked === true ? [claim] : [])),
      )
      const keys = new KeyWriter(client, context, 'settle-ordered')
      const result = await keys.write(plan)
      if (plan.receipts.length > 0) {
        await writeReceipts(client, context, plan.receipts, ({ id }) => keys.completedIds.has(id), true)
        await faultPoint?.('settle-ordered.receipts-inserted')
      }
      return result
    }, `${beginSql}; set local lock_timeout = '${lockTimeoutMs}ms'`)
    await faultPoint?.('settle-ordered.committed')
    return written
  }

  /**
   * Locks, in this order: the receipts; the row of the key, late, so that no handler runs while others wait for it, and for two
   * seconds at most; the row of the job, until the commit.
   */
  async function writeInto(client: pg.ClientBase, settlement: Settlement): Promise<Written> {
    const { claim, done } = settlement
    const protocol = done ? 'exactly-once-ordered' : 'exactly-once'
    const plan = planKeyWrites([settlement])
    if (await insertNewReceipts(client, context, plan.receipts))
      await faultPoint?.(`${protocol}.receipts-inserted`)
    if (!done) {
      if (!(await new JobWriter(client, context).lock(claim))) throw new ClaimLost()
      return { readyCount: 0, deadLetters: [] }
    }
    try {
      // Other waits, at the commit for example, have no limit in a transaction of handlers.
      await client.query(
        `set local lock_timeout = '${handlersLockTimeoutMs}ms';
         select from bus.ordered_keys where id = ${client.escapeLiteral(claim.data.keyId ?? '')} for update;
         set local lock_timeout = 0`,
      )
    } catch (error) {
      throw isLockTimeout(error) ? new KeyLocked() : error
    }
    const keys = new KeyWriter(client, context, 'exactly-once-ordered')
    const written = await keys.write(plan)
    if (!keys.completedIds.has(claim.id)) throw new ClaimLost()
    return written
  }

  /** The first event without a receipt has one attempt more, and all are delivered one by one, so that one that kills its process is found. */
  async function recover(claim: JobClaim): Promise<Written> {
    const { eventIds } = claim.data
    const written = await database.transaction(async (client) => {
      const delivered = await readReceipts(client, subscriptionId, eventIds)
      const next = eventIds.findIndex((id) => !delivered.has(id))
      const doneCount = next === -1 ? eventIds.length : next
      const loss = next === -1 ? undefined : afterWorkerLoss(claim, subscription)
      await lockKeys(client, [claim])
      return new KeyWriter(client, context, 'settle-ordered').writeLoss(claim, doneCount, loss)
    })
    await faultPoint?.('recover-ordered-job.committed')
    return written
  }

  return { write, writeInto, recover }
}

/** The settlements whose key's row another session holds now. */
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
 * Locks the keys of some jobs, in the order of their hashes: in the same order as the relay that puts events behind them, so that
 * neither waits for a key of the other while it holds one.
 */
async function lockKeys(client: pg.ClientBase, claims: readonly JobClaim[]): Promise<void> {
  await client.query(
    'select from bus.ordered_keys where id = any($1::bigint[]) order by subscription_id, key_hash for update',
    [claims.map(({ data }) => data.keyId)],
  )
}

/** Plans the writes for keys' jobs. */
export function planKeyWrites(settlements: readonly Settlement[]): KeyWrites {
  const plan: KeyWrites = { receipts: receiptsOf(settlements), ended: [], failedSingles: [], requeued: [] }
  for (const { claim, outcomes, done, requeued = [], ...options } of settlements) {
    if (!done) continue
    const { eventIds } = claim.data
    const failed = outcomes.find(isFailure)
    if (failed !== undefined && eventIds.length === 1) {
      plan.failedSingles.push({ claim, failed })
    } else if (failed !== undefined) {
      plan.ended.push({ claim, doneCount: eventIds.indexOf(failed.eventId), failed })
    } else if (requeued.length > 0 && requeued.length === eventIds.length) {
      plan.requeued.push({ claim, options })
    } else {
      const [firstLeft] = requeued
      const doneCount = firstLeft === undefined ? eventIds.length : eventIds.indexOf(firstLeft)
      plan.ended.push({ claim, doneCount })
    }
  }
  return plan
}
