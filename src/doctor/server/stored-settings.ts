import { quoteName } from '../check/finding.ts'
import type { CheckContext } from '../check/check.ts'

/** A setting of the database or of a role, as `alter database … set` and `alter role … set` write them. */
export interface StoredSetting extends Record<string, unknown> {
  readonly name: string
  readonly value: string
  /** Null: of the database. */
  readonly role: string | null
  /** Whether it is of this database, or of this role in this database. */
  readonly is_here: boolean
}

/**
 * Whether a role `r` may write events. A superuser may do everything, and is not taken for a service unless it is the login at hand: the settings
 * of those who only report or replicate are their own affair.
 */
const mayPublishSql = `(r.rolname = session_user or not r.rolsuper and (
  exists (select from pg_roles b where b.rolname in ('bus_publisher', 'bus_worker') and pg_has_role(r.oid, b.oid, 'member'))
  or exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'bus' and c.relname = 'events' and has_table_privilege(r.oid, c.oid, 'insert'))))`

/** The settings that sessions of services get from this database, and from the roles that may publish. */
export async function readStoredSettings({ read }: CheckContext): Promise<readonly StoredSetting[]> {
  return read<StoredSetting>(
    `select split_part(c.entry, '=', 1) as name, substr(c.entry, strpos(c.entry, '=') + 1) as value, r.rolname as role, s.setdatabase <> 0 as is_here
     from pg_db_role_setting s cross join lateral unnest(s.setconfig) as c (entry) left join pg_roles r on r.oid = s.setrole
     where s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
       and (s.setrole = 0 or ${mayPublishSql})
     order by 1, 3 limit 1000`,
  )
}

export function settingsLike(
  stored: readonly StoredSetting[],
  name: string,
  values: readonly string[],
): readonly StoredSetting[] {
  return stored.filter((each) => each.name === name && values.includes(each.value.toLowerCase()))
}

/** Undefined if nothing is stored: then it is a setting of the server. */
export function resetSql(stored: readonly StoredSetting[], database: string): string | undefined {
  if (stored.length === 0) return undefined
  return stored
    .map(({ name, role, is_here: isHere }) => {
      const where = `database ${quoteName(database)}`
      if (role === null) return `alter ${isHere ? where : 'role all'} reset ${name};`
      return `alter role ${quoteName(role)}${isHere ? ` in ${where}` : ''} reset ${name};`
    })
    .join(' ')
}
