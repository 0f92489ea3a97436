import { DatabaseError } from '../../foundation/errors.ts'
import type { Database } from '../../database/database.ts'

/**
 * The columns of pg-boss, by table, that statements of the bus read or write, including the SQL functions in
 * `drizzle/`, with the types that the statements require. pg-boss guarantees its functions, not its tables: columns
 * that are not listed here may change, and the listed ones are checked at each start.
 * `test/delivery/jobs/boss-columns.test.ts` compares the list with the statements.
 */
export const bossColumns = {
  version: { version: 'int4' },
  queue: {
    name: 'text',
    table_name: 'text',
    deletion_seconds: 'int4',
    monitor_on: 'timestamptz',
    monitor_claim_on: 'timestamptz',
    maintain_on: 'timestamptz',
  },
  job: {
    id: 'uuid',
    name: 'text',
    priority: 'int4',
    data: 'jsonb',
    state: 'job_state',
    retry_count: 'int4',
    singleton_key: 'text',
    group_id: 'text',
    start_after: 'timestamptz',
    created_on: 'timestamptz',
    started_on: 'timestamptz',
    completed_on: 'timestamptz',
    output: 'jsonb',
    heartbeat_on: 'timestamptz',
    heartbeat_seconds: 'int4',
    blocked: 'bool',
    dead_letter: 'text',
    source_name: 'text',
    source_id: 'uuid',
    source_root_id: 'uuid',
    source_retry_count: 'int4',
    source_output: 'jsonb',
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, string>>>>

/** The states of a job in the order of the enum: statements compare them by it, as in `state < 'active'`. */
const jobStates = ['created', 'retry', 'active', 'completed', 'cancelled', 'failed'] as const

/**
 * Verifies in one statement that the tables of pg-boss have the columns that statements of the bus use, with the
 * required types, and that the states of a job have the required order.
 *
 * @throws a {@link DatabaseError} `BUS_BOSS_SCHEMA_UNSUPPORTED`
 */
export async function assertBossColumns({
  query,
  bossSchema,
  bossSchemaName,
}: Pick<Database, 'query' | 'bossSchema' | 'bossSchemaName'>): Promise<void> {
  const wanted = Object.entries(bossColumns).flatMap(([table, columns]) =>
    Object.entries(columns).map(([column, type]) => [table, column, type] as const),
  )
  const { rows } = await query<{ missing: string }>(
    `select w.table_name || '.' || w.column_name || ' ' || w.type_name as missing
     from unnest($2::text[], $3::text[], $4::text[]) with ordinality as w (table_name, column_name, type_name, ordinal)
     where not exists (
       select from pg_class c
       join pg_attribute a on a.attrelid = c.oid and a.attname = w.column_name and not a.attisdropped
       join pg_type t on t.oid = a.atttypid and t.typname = w.type_name
       where c.relnamespace = to_regnamespace($1) and c.relname = w.table_name)
     union all
     select 'job_state ' || $5
     where $5 is distinct from (
       select string_agg(e.enumlabel, ' < ' order by e.enumsortorder) from pg_enum e
       where e.enumtypid = to_regtype($1 || '.job_state'))`,
    [
      bossSchema,
      wanted.map(([table]) => table),
      wanted.map(([, column]) => column),
      wanted.map(([, , type]) => type),
      jobStates.join(' < '),
    ],
  )
  if (rows.length === 0) return
  throw new DatabaseError(
    'BUS_BOSS_SCHEMA_UNSUPPORTED',
    `pg-boss in the schema \`${bossSchemaName}\` lacks what the statements of bossbus use: ${rows.map(({ missing }) => missing).join(', ')}. ` +
      'Install the version of pg-boss that bossbus depends on, and undo changes to its tables',
  )
}
