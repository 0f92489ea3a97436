import type { PgBoss } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import type { Database } from '../../database/database.ts'
import { logBuried } from '../attempts/failure.ts'
import { takeApart } from '../settlement/lost-job.ts'
import { takeApartOrdered } from '../ordering/ordered-settlement.ts'
import type { Settler } from '../settlement/settlement-queue.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import type { JobClaim } from '../jobs/job-claim.ts'

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
