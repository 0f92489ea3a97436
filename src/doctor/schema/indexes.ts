import { found, sqlRemedy } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

interface Row extends Record<string, unknown> {
  readonly name: string
  readonly table_name: string
  /** Of a partitioned table: a partition has no such index. */
  readonly is_partitioned: boolean
  readonly is_leftover: boolean
}

/**
 * Indexes that the server does not use, because building them was interrupted. One that is being built now is not a finding; which one that is,
 * the server does not tell every role.
 */
export const invalidIndexesCheck: Check = {
  name: 'invalid indexes',
  needs: 'bus schema',
  async run({ read, database }) {
    const rows = await read<Row>(
      `select i.oid::regclass::text as name, x.indrelid::regclass::text as table_name, i.relkind = 'I' as is_partitioned,
         i.relname ~ '_cc(new|old)[0-9]*$' as is_leftover
       from pg_index x join pg_class i on i.oid = x.indexrelid join pg_namespace n on n.oid = i.relnamespace
       where n.nspname in ('bus', '${database.bossSchemaName}') and not (x.indisvalid and x.indisready)
         and not exists (
           select from pg_stat_progress_create_index p
           where p.datname = current_database() and (p.index_relid = i.oid or p.index_relid is null))
       order by 1 limit 100`,
    )
    if (rows.length === 0) return []
    return [
      found(
        'index-invalid',
        `Indexes are not used, because they were not built to the end: ${rows
          .slice(0, 3)
          .map(({ name }) => name)
          .join(', ')}. What they are for reads whole tables, and a unique one lets duplicates through`,
        sqlRemedy(
          'As the owner of the schema',
          rows.map(({ name, is_partitioned: isPartitioned, is_leftover: isLeftover }) =>
            isLeftover
              ? `drop index concurrently ${name}`
              : isPartitioned
                ? undefined
                : `reindex index concurrently ${name}`,
          ),
        ) +
          (rows.some(({ is_partitioned: isPartitioned }) => isPartitioned)
            ? ' An index of a partitioned table is valid when each partition has one that is attached: create index …; alter index … attach partition ….'
            : ''),
        { indexes: rows },
      ),
    ]
  },
}
