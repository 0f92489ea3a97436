import type { Database } from '../database/database.ts'
import { readBossVersion } from '../delivery/jobs/boss-version.ts'
import { countMigrations } from '../migrations/migrate.ts'
import type { Facts } from './check/check.ts'
import { isPooled } from './check/limited-database.ts'
import { measureRoundTrip } from './connection/round-trip.ts'

interface Row extends Record<string, unknown> {
  readonly version: string
  readonly version_text: string
  readonly database: string
  readonly role: string
  readonly is_superuser: boolean
  readonly is_standby: boolean
  readonly read_only: string
  readonly has_bus: boolean
}

/**
 * Reads what the checks go by, with a statement that any server understands.
 *
 * @throws a {@link DatabaseError} `BUS_DATABASE_UNAVAILABLE`
 */
export async function readFacts(database: Database): Promise<Facts> {
  const pooled = await isPooled(database)
  const { rows } = await database.query<Row>(
    `select current_setting('server_version_num') as version, split_part(current_setting('server_version'), ' ', 1) as version_text,
       current_database()::text as database, current_user::text as role, pg_is_in_recovery() as is_standby,
       (select r.rolsuper from pg_roles r where r.rolname = current_user) as is_superuser,
       current_setting('transaction_read_only') as read_only, exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'bus' and c.relname = 'migrations') as has_bus`,
  )
  const [row] = rows
  const hasBus = row?.has_bus === true
  return {
    serverVersion: Number(row?.version),
    serverVersionText: row?.version_text ?? '',
    database: row?.database ?? '',
    role: row?.role ?? '',
    isSuperuser: row?.is_superuser === true,
    isStandby: row?.is_standby === true,
    isWritable: row?.read_only === 'off',
    isPooled: pooled,
    hasBus,
    appliedCount: hasBus ? await countApplied(database) : 0,
    shippedCount: await countMigrations(),
    // Another check says why it cannot be read.
    bossVersion: await readBossVersion(database).catch(() => undefined),
    roundTripMs: await measureRoundTrip(database),
  }
}

async function countApplied({ query }: Database): Promise<number | undefined> {
  return query<{ count: number }>('select count(*)::int as count from bus.migrations').then(
    ({ rows }) => rows[0]?.count,
    () => undefined,
  )
}
