import type { PgBoss } from 'pg-boss'
import type { BusLogger } from '../events/logger.ts'
import type { Database } from '../outbox/database.ts'
import { wakePayload, wakeSql } from '../outbox/doorbell.ts'
import { isOrdered, writeOrderedSettlements } from './ordered-settlement.ts'
import { writeSettlements, type Settlement } from './settlement.ts'
import { reasonOf } from './settler.ts'
import type { Subscription } from './subscription.ts'

/** Writes settlements of one subscription: those of keys' jobs in a transaction of their own. Gives the number of jobs ready now. */
export async function writeOutcomes(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  settlements: readonly Settlement[],
  logger: BusLogger,
): Promise<number> {
  const ordered = settlements.filter(isOrdered)
  if (ordered.length < settlements.length) {
    const free = settlements.filter((settlement) => !isOrdered(settlement))
    await writeSettlements(database, boss, subscription, subscriptionId, free, logger)
  }
  if (ordered.length === 0) return 0
  return writeOrderedSettlements(database, boss, subscription, subscriptionId, ordered, logger)
}

/** Tells other processes of jobs that this one leaves behind, so that they need not come across them by chance. */
export async function wakeOthers(
  database: Database,
  subscriptionId: number,
  logger: BusLogger,
): Promise<void> {
  try {
    await database.query(wakeSql, [wakePayload('', [subscriptionId])])
  } catch (error) {
    logger.debug({ reason: reasonOf(error) }, 'other processes could not be told of jobs')
  }
}
