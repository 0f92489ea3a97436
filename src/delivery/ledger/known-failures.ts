import type { Database } from '../../database/database.ts'

/** The number of the migration that created the ledger. */
export const ledgerMigration = 6

/** Events in one transaction. */
const sliceSize = 1000

/**
 * Records in the ledger what jobs alone know of failing events and their attempts, in slices: those of the version before, and of its
 * processes that run beside newer ones. Deliveries may go on meanwhile: what they record is skipped. A crash loses nothing; the next call
 * continues.
 */
export async function recordKnownFailures(database: Pick<Database, 'query'>): Promise<void> {
  const { rows: subscriptions } = await database.query<{ id: number }>(
    'select id from bus.subscriptions order by id',
  )
  for (const { id } of subscriptions) {
    for (;;) {
      const { rows } = await database.query<{ recorded: string }>(
        'select bus.record_known_failures($1, $2) as recorded',
        [id, sliceSize],
      )
      if (Number(rows[0]?.recorded ?? 0) < sliceSize) break
    }
  }
}
