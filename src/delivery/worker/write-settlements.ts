import type { PgBoss } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { isLockTimeout } from '../../outbox/relay/claim.ts'
import type { Database } from '../../database/database.ts'
import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'
import { isOrdered, withLockedKeys, writeOrderedSettlements } from '../ordering/ordered-settlement.ts'
import { writeSettlements, type Settlement } from '../settlement/settlement.ts'
import type { Subscription } from '../subscriptions/subscription.ts'

/** What has become of settlements. */
export interface Written {
  /** Jobs that are ready now. */
  readonly readyCount: number
  /** Those of keys whose row somebody else holds: they are to be written later. */
  readonly left: readonly Settlement[]
}

/** Writes settlements of one subscription: those of keys' jobs in a transaction of their own. */
export async function writeOutcomes(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  settlements: readonly Settlement[],
  logger: BusLogger,
): Promise<Written> {
  const ordered = settlements.filter(isOrdered)
  if (ordered.length < settlements.length) {
    const free = settlements.filter((settlement) => !isOrdered(settlement))
    await writeSettlements(database, boss, subscription, subscriptionId, free, logger)
  }
  const write = async (chosen: readonly Settlement[]): Promise<number> =>
    chosen.length === 0
      ? 0
      : writeOrderedSettlements(database, boss, subscription, subscriptionId, chosen, logger)
  try {
    return { readyCount: await write(ordered), left: [] }
  } catch (error) {
    if (!isLockTimeout(error)) throw error
    // A worker that was stopped, an operator: the other keys go on meanwhile.
    const left = await withLockedKeys(database, ordered)
    if (left.length === 0) throw error
    return { readyCount: await write(ordered.filter((settlement) => !left.includes(settlement))), left }
  }
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
    logger.debug({ reason: reasonOf(error) }, 'other processes could not be notified of jobs')
  }
}
