import type { PgBoss } from 'pg-boss'
import type { Database } from '../../database/database.ts'
import { findQueuesToMaintain } from '../jobs/queue-state/queues-to-maintain.ts'
import { recordKnownFailures } from '../ledger/known-failures.ts'
import { createReceiptPacker } from '../ledger/pack-receipts.ts'
import { pruneHours, rollUpHours } from '../ledger/hourly-rollups.ts'

/**
 * Up to this number of queues, pg-boss maintains all of them once an hour, and more often those with work to do.
 * Maintaining one takes some thirty statements, which would be most of the load of an idle process if done more often.
 */
const fewQueues = 100
const fewIntervalMs = 60 * 60_000

/** How often receipts that came one by one are packed, and failing events recorded that only jobs know of. */
const ledgerIntervalMs = 60 * 60_000

/** How often pg-boss maintains all queues, however many there are: only then does it rebuild indexes. */
const fullIntervalMs = 24 * 60 * 60_000

/**
 * Returns a function that makes pg-boss count, expire and delete jobs, deletes old statistics and keeps the ledger. If there are few queues,
 * pg-boss covers all of them at first and then periodically; otherwise only those with work to do.
 */
export function createCleanup(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  boss: PgBoss,
): () => Promise<void> {
  const startedAt = performance.now()
  let fullAt: number | undefined
  let ledgerAt = Number.NEGATIVE_INFINITY
  const packReceipts = createReceiptPacker(executor)
  return async () => {
    try {
      await maintainQueues()
    } finally {
      await keepLedger()
    }
  }

  async function keepLedger(): Promise<void> {
    await rollUpHours(executor)
    if (performance.now() - ledgerAt < ledgerIntervalMs) return
    ledgerAt = performance.now()
    await pruneHours(executor)
    await recordKnownFailures(executor)
    await packReceipts()
  }

  async function maintainQueues(): Promise<void> {
    const { total, names } = await findQueuesToMaintain(executor)
    const areFew = total <= fewQueues
    const lastFullAt = fullAt ?? (areFew ? Number.NEGATIVE_INFINITY : startedAt)
    if (performance.now() - lastFullAt > (areFew ? fewIntervalMs : fullIntervalMs)) {
      await boss.supervise()
      fullAt = performance.now()
      return
    }
    // Reindexing happens once a day, for all tables or for none.
    for (const name of names) await boss.supervise(name, { reindex: false })
  }
}
