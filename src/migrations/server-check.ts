import { DatabaseError } from '../foundation/errors.ts'
import type { Database, Executor } from '../database/database.ts'

/** The oldest supported server, as `server_version_num`. */
const minServerVersion = 140_000

interface Need {
  readonly name: string
  readonly isMet: (value: string) => boolean
  readonly wanted: string
}

/**
 * Settings that the bus's statements require. The bus sets them for its own sessions (see session-settings.ts), but a
 * pooler may prevent that, and one of them only a superuser may set.
 */
const needs: readonly Need[] = [
  is('standard_conforming_strings', 'on'),
  is('default_transaction_isolation', 'read committed'),
  is('default_transaction_read_only', 'off'),
  is('row_security', 'on'),
  { name: 'session_replication_role', isMet: (value) => value !== 'replica', wanted: 'origin' },
  { name: 'DateStyle', isMet: (value) => value.startsWith('ISO'), wanted: 'ISO' },
  { name: 'search_path', isMet: (value) => !/,\s*"?pg_catalog\b/.test(value), wanted: 'pg_catalog first' },
]

function is(name: string, wanted: string): Need {
  return { name, isMet: (value) => value === wanted, wanted }
}

/** A setting of a connection of the bus that is not as its statements require. */
interface UnmetNeed {
  readonly name: string
  readonly value: string
  readonly wanted: string
}

/** The settings that the bus could not set for itself. */
export async function unmetNeeds(executor: Pick<Executor, 'query'>): Promise<readonly UnmetNeed[]> {
  return (await readServer(executor)).unmet
}

async function readServer(
  executor: Pick<Executor, 'query'>,
): Promise<{ readonly version: number; readonly unmet: readonly UnmetNeed[] }> {
  const columns = needs.map(({ name }) => `current_setting('${name}') as "${name}"`)
  const { rows } = await executor.query<Record<string, string>>(
    `select current_setting('server_version_num') as version, ${columns.join(', ')}`,
  )
  const found = rows[0] ?? {}
  const unmet = needs
    .map(({ name, isMet, wanted }) => ({ name, isMet, wanted, value: found[name] ?? '' }))
    .filter(({ isMet, value }) => !isMet(value))
    .map(({ name, wanted, value }) => ({ name, value, wanted }))
  return { version: Number(found['version']), unmet }
}

/**
 * Verifies that the bus can work with the server, as seen by one of its connections.
 *
 * @throws a {@link DatabaseError} `BUS_DATABASE_UNSUPPORTED`, `BUS_SETTING_UNSUPPORTED`
 */
export async function checkServer(executor: Pick<Executor, 'query'>): Promise<void> {
  const { version, unmet } = await readServer(executor)
  if (version < minServerVersion)
    throw new DatabaseError(
      'BUS_DATABASE_UNSUPPORTED',
      `Expected PostgreSQL 14 or newer, got ${Math.floor(version / 10_000)}`,
    )
  const [first] = unmet
  if (first === undefined) return
  if (first.name === 'default_transaction_read_only')
    throw new DatabaseError(
      'BUS_SETTING_UNSUPPORTED',
      'Transactions are read-only for the bus (`default_transaction_read_only` is `on`), because the `options` of its database URL say so, or a pooler keeps it from saying otherwise: ' +
        'give the bus a URL without it, and a direct one, or set it to off for the role',
    )
  throw new DatabaseError(
    'BUS_SETTING_UNSUPPORTED',
    `The setting \`${first.name}\` is \`${first.value}\` for the bus, which needs \`${first.wanted}\` and could not set it itself: ` +
      'give the bus a direct database URL instead of that of a pooler, or set it for the role or the database',
  )
}

interface HiddenTable extends Record<string, unknown> {
  readonly table_name: string
  readonly role: string
}

/**
 * The first table that the role of a connection has privileges on, and of which row security shows it no rows. An event trigger, which some
 * platforms have, may have enabled row security on tables that the bus created without it; they then appear empty.
 */
export async function findHiddenTable({
  query,
  bossSchemaName,
}: Pick<Database, 'query' | 'bossSchemaName'>): Promise<HiddenTable | undefined> {
  const { rows } = await query<HiddenTable>(
    `select n.nspname || '.' || c.relname as table_name, current_user::text as role
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('bus', $1) and c.relrowsecurity
       and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') and row_security_active(c.oid)
       and not exists (
         select from pg_policy p cross join lateral unnest(p.polroles) as r (role_id)
         where p.polrelid = c.oid and p.polpermissive and p.polcmd in ('*', 'r')
           and (r.role_id = 0 or pg_has_role(r.role_id, 'usage')))
     order by 1 limit 1`,
    [bossSchemaName],
  )
  return rows[0]
}

/**
 * Verifies that row security lets this role read the tables that it has privileges on: see {@link findHiddenTable}.
 *
 * @throws a {@link DatabaseError} `BUS_PERMISSION_DENIED`
 */
export async function checkRowSecurity(executor: Pick<Database, 'query' | 'bossSchemaName'>): Promise<void> {
  const hidden = await findHiddenTable(executor)
  if (hidden === undefined) return
  throw new DatabaseError(
    'BUS_PERMISSION_DENIED',
    `Row security is enabled on \`${hidden.table_name}\`, and no policy shows its rows to the role \`${hidden.role}\`: ` +
      'run bus.migrate() as the owner of the schemas, which creates the policies of the bus roles',
    { sqlState: '42501' },
  )
}
