import type { PgBoss } from 'pg-boss'
import type { BusLogger } from '../events/logger.ts'
import type { Database } from '../outbox/database.ts'
import { logBuried } from './failure.ts'
import { takeApart } from './lost-job.ts'
import { takeApartOrdered } from './ordered-settlement.ts'
import type { JobClaim } from './settlement.ts'
import type { Settler } from './settler.ts'
import type { Subscription } from './subscription.ts'

/** The worker of a job died: what it left goes on in jobs of its own. */
export async function goOnAfterLoss(
  database: Database,
  boss: PgBoss,
  subscription: Subscription,
  subscriptionId: number,
  claim: JobClaim,
  settler: Settler,
  logger: BusLogger,
): Promise<void> {
  const goOn = claim.data.keyId === undefined ? takeApart : takeApartOrdered
  const buried = await settler.untilWritten(async () =>
    goOn(database, boss, subscription, subscriptionId, claim),
  )
  for (const { eventId, output } of buried) logBuried(logger, subscription.name, eventId, output)
}
