import { DatabaseError } from '../../foundation/errors.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { Executor } from '../../database/database.ts'
import { toBusError } from '../../database/database-errors.ts'

/**
 * Advances the sequences of the schema `bus` that are behind their tables, and logs their names. A copy of the database
 * may lack their values: after logical replication, or a table-wise restore of a dump. Positions and ids in use would
 * then be allocated again. Reads the ends of indexes, except for waiting events of ordered subscriptions, which are
 * read once.
 *
 * @param options.isOlderAllowed - skips a schema that is too old to be queried
 * @throws a {@link DatabaseError} `BUS_PERMISSION_DENIED` if the role may neither read nor advance them
 */
export async function repairSequences(
  executor: Executor,
  logger: BusLogger,
  { isOlderAllowed = false }: { readonly isOlderAllowed?: boolean } = {},
): Promise<void> {
  const { rows } = await executor
    .query<{ name: string; was: string; now: string }>('select name, was, now from bus.repair_sequences()')
    .catch((thrown: unknown) => {
      const error = toBusError(thrown)
      if (isOlderAllowed && error.code === 'BUS_SCHEMA_MISSING') return { rows: [] }
      if (error.code !== 'BUS_PERMISSION_DENIED') throw error
      throw new DatabaseError(
        error.code,
        'The role of this bus may not call bus.repair_sequences(), so it cannot make sure that no position is given twice: grant it bus_worker, and run bus.migrate() as the owner of the schema `bus`',
        { cause: error, sqlState: '42501' },
      )
    })
  if (rows.length === 0) return
  logger.warn(
    { sequences: rows },
    'sequences were behind their tables and have been advanced: this database is a copy without their values',
  )
}
