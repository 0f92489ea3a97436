import type pg from 'pg'
import type { DeadLettered } from '../jobs/dead-letter.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import { insertReceipts, uniqueViolation } from './receipts.ts'
import { receiptsOf, type Settlement } from './settlement.ts'

/** What is to be done once the outcomes are committed. */
export interface Written {
  /** Jobs that are ready then. */
  readonly readyCount: number
  /** To be logged. */
  readonly deadLetters: readonly DeadLettered[]
}

/**
 * Writes the outcomes of a subscription's jobs. There are two implementations: for keys' jobs, and for all others. Each write is
 * idempotent or fenced by the claim, so it can be repeated after a commit whose answer was lost.
 */
export interface SettlementWriter {
  /** Writes settlements in one transaction. A crash before its commit leaves everything as it was, and the jobs run again. */
  write: (settlements: readonly Settlement[]) => Promise<Written>
  /**
   * Writes a settlement into the open transaction of its handlers, so that both commit together. Cannot be repeated in the same
   * transaction.
   *
   * @throws an {@link AlreadyDelivered}, {@link ClaimLost} or {@link KeyLocked}: the transaction must be rolled back
   */
  writeInto: (client: pg.ClientBase, settlement: Settlement) => Promise<Written>
  /**
   * Ends a job whose worker was lost: its events that have no receipt go on one by one, each in a job with a new id, so that the lost
   * worker cannot settle them, should it still run.
   */
  recover: (claim: JobClaim) => Promise<Written>
}

/** Another worker has delivered one of the events meanwhile. */
export class AlreadyDelivered extends Error {}

/** The job belongs to another worker by now. */
export class ClaimLost extends Error {}

/** Another session holds the row of the key for long. */
export class KeyLocked extends Error {}

/**
 * Inserts the receipts of a transaction of handlers. Their primary key lets one of several concurrent transactions through.
 *
 * @throws an {@link AlreadyDelivered} where one is there already
 */
export async function insertNewReceipts(
  client: pg.ClientBase,
  { subscriptionId }: SubscriptionContext,
  settlement: Settlement,
): Promise<boolean> {
  // In the same order for all, so that workers with the same events wait for each other and never deadlock.
  const receipts = receiptsOf([settlement]).toSorted((a, b) => (a.eventId < b.eventId ? -1 : 1))
  if (receipts.length === 0) return false
  await insertReceipts(client, subscriptionId, receipts, false).catch((error: unknown) => {
    throw (error as { code?: string }).code === uniqueViolation ? new AlreadyDelivered() : error
  })
  return true
}
