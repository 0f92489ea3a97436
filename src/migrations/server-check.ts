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

/**
 * Verifies that the bus can work with the server, as seen by one of its connections.
 *
 * @throws a {@link DatabaseError} `BUS_DATABASE_UNSUPPORTED`, `BUS_SETTING_UNSUPPORTED`
 */
export async function checkServer(executor: Pick<Executor, 'query'>): Promise<void> {
  const columns = needs.map(({ name }) => `current_setting('${name}') as "${name}"`)
  const { rows } = await executor.query<Record<string, string>>(
    `select current_setting('server_version_num') as version, ${columns.join(', ')}`,
  )
  const found = rows[0] ?? {}
  const version = Number(found['version'])
  if (version < minServerVersion)
    throw new DatabaseError(
      'BUS_DATABASE_UNSUPPORTED',
      `Expected PostgreSQL 14 or newer, got ${Math.floor(version / 10_000)}`,
    )
  for (const { name, isMet, wanted } of needs) {
    const value = found[name] ?? ''
    if (isMet(value)) continue
    throw new DatabaseError(
      'BUS_SETTING_UNSUPPORTED',
      `The setting \`${name}\` is \`${value}\` for the bus, which needs \`${wanted}\` and could not set it itself: ` +
        'give the bus a direct database URL instead of that of a pooler, or set it for the role or the database',
    )
  }
}

/**
 * Verifies that row security lets this role read the tables that it has privileges on. An event trigger, which some
 * platforms have, may have enabled row security on tables that the bus created without it; they then appear empty.
 *
 * @throws a {@link DatabaseError} `BUS_PERMISSION_DENIED`
 */
export async function checkRowSecurity({
  query,
  bossSchemaName,
}: Pick<Database, 'query' | 'bossSchemaName'>): Promise<void> {
  const { rows } = await query<{ table_name: string; role: string }>(
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
  const [hidden] = rows
  if (hidden === undefined) return
  throw new DatabaseError(
    'BUS_PERMISSION_DENIED',
    `Row security is enabled on \`${hidden.table_name}\`, and no policy shows its rows to the role \`${hidden.role}\`: ` +
      'run bus.migrate() as the owner of the schemas, which creates the policies of the bus roles',
    { sqlState: '42501' },
  )
}
