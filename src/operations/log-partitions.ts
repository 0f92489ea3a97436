import { lowestId } from '../events/event-id.ts'
import type { Executor } from '../database/database.ts'
import type { Window } from './event-statements.ts'
import { highestEventId, lowestEventId } from './history-filter.ts'

/**
 * The partitions of the log, oldest first. A statement on one of them locks it and its indexes alone, however many months the log has. Months
 * to come are one part: they are as good as empty.
 */
export async function partitionsIn(executor: Executor): Promise<Window[]> {
  const { rows } = await executor.query<{ bounds: string[] }>(
    'select bus.partition_bounds($1::uuid, $2::uuid)::text[] as bounds',
    [lowestEventId, highestEventId],
  )
  const now = new Date()
  const nextMonth = lowestId(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + 1))
  const bounds = (rows[0]?.bounds ?? []).filter((bound) => bound <= nextMonth || bound === highestEventId)
  return bounds.slice(1).map((bound, index) => ({ low: bounds[index] ?? lowestEventId, high: bound }))
}
