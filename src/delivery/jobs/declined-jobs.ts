import type { Database } from '../../database/database.ts'

/** The pg-boss group of jobs that some declarations do not cover. */
export function declinedGroup(declarationIds: readonly number[]): string {
  return `left by ${declarationIds.join(',')}`
}

/** Takes the waiting jobs of a queue that were left to other code out of their groups, so that every process fetches them. */
export async function offerDeclinedJobs(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  queue: string,
): Promise<void> {
  await executor.query(
    `update ${executor.bossSchema}.job set group_id = null, priority = greatest(priority, 0)
     where name = $1 and state < 'active' and data ? 'declinedBy'`,
    [queue],
  )
}
