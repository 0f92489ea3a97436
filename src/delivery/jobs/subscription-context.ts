import type { PgBoss } from 'pg-boss'
import type { Database } from '../../database/database.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { JobData, ReplayOfJob } from './job.ts'
import type { Rollups } from '../ledger/rollups.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import type { Telemetry } from '../../telemetry/telemetry.ts'

/** A subscription that this process runs, and what each step of its delivery works with. */
export interface SubscriptionContext {
  readonly subscription: Subscription
  /** Its id in `bus.subscriptions`. */
  readonly subscriptionId: number
  /** Its pg-boss queue. */
  readonly queue: string
  readonly database: Database
  readonly boss: PgBoss
  readonly logger: BusLogger
  /** This process: its id in `bus.instances`. */
  readonly instanceId: string
  readonly rollups: Rollups
  readonly telemetry: Telemetry
  /** Called when events have become dead letters. */
  readonly onDeadLetters?: (() => void) | undefined
  /** Set for jobs of a replay: `subscriptionId` is then its id in the ledger. */
  readonly replay?: ReplayOfJob
}

/** The context in which what becomes of a job is recorded: that of a replay is recorded under the id of the replay. */
export function ledgerContext(
  context: SubscriptionContext,
  { replay }: Pick<JobData, 'replay'>,
): SubscriptionContext {
  return replay === undefined ? context : { ...context, subscriptionId: replay.ledgerId, replay }
}
