import type { Database } from '../../database/database.ts'
import type { StoredFilter } from '../../delivery/operator/dead-letter-filter.ts'
import { discardLetters } from '../../delivery/operator/discard-letters.ts'
import { loadSubscriptions } from '../../delivery/registry/registry.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { OperationPart } from '../operation-runner.ts'
import { readSlice } from './slice.ts'

/** Discards dead letters, a slice in each part. */
export function createDiscardPart(database: Database, logger: BusLogger): OperationPart {
  return async (client, { id: operationId, options, progress }, maxCount) => {
    const slice = await readSlice(client, options['filter'] as StoredFilter, progress, maxCount)
    const subscriptions = new Map((await loadSubscriptions(client)).map((each) => [each.id, each]))
    const counts = { discarded: 0, skipped: 0, noSubscription: 0 }
    for (const [id, letters] of slice.bySubscription) {
      const subscription = subscriptions.get(id)
      if (subscription === undefined) {
        counts.noSubscription += letters.length
        continue
      }
      const discarded = await discardLetters({ client, database, logger }, subscription, letters, operationId)
      counts.discarded += discarded.length
      counts.skipped += letters.length - discarded.length
    }
    return {
      progress: slice.cursor,
      counts: Object.fromEntries(Object.entries(counts).filter(([, count]) => count > 0)),
      handledCount: counts.discarded,
      next: slice.isLast ? { state: 'done' } : { state: 'running' },
    }
  }
}
