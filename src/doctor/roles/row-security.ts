import { findHiddenTable } from '../../migrations/server-check.ts'
import { found, quoteName } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

interface BypassRow extends Record<string, unknown> {
  readonly role: string
  readonly is_superuser: boolean
  readonly bypasses: boolean
  readonly owns: boolean
  readonly members: readonly string[]
}

/** The roles that row security and the rules for sources are meant to bind: whether anything frees them. */
export const boundRolesCheck: Check = {
  name: 'roles that row security binds',
  needs: 'bus schema',
  async run({ read }) {
    const rows = await read<BypassRow>(
      `select r.rolname as role, r.rolsuper as is_superuser, r.rolbypassrls as bypasses,
         pg_has_role(r.oid, n.nspowner, 'member') as owns,
         array(select b.rolname::text from pg_roles b where b.rolname in ('bus_worker', 'bus_operator') and pg_has_role(r.oid, b.oid, 'member') order by 1) as members
       from pg_roles r join pg_namespace n on n.nspname = 'bus'
       where r.rolname in ('bus_tenant', 'bus_publisher')`,
    )
    const free = rows.filter(
      ({ is_superuser: isSuperuser, bypasses, owns, members }) =>
        isSuperuser || bypasses || owns || members.length > 0,
    )
    if (free.length === 0) return []
    const names = free.map(({ role }) => role)
    return [
      found(
        'row-security-bypassed',
        `${names.join(' and ')} can do more than one tenant's reads, or a publish: row security does not bind ${names.length > 1 ? 'them' : 'it'}, so a tenant may see the events of another one`,
        free
          .flatMap(({ role, is_superuser: isSuperuser, bypasses, members }) => [
            ...(isSuperuser ? [`alter role ${role} nosuperuser;`] : []),
            ...(bypasses ? [`alter role ${role} nobypassrls;`] : []),
            // A superuser is a member of everything.
            ...(isSuperuser ? [] : members.map((name) => `revoke ${quoteName(name)} from ${role};`)),
          ])
          .join(' ') || `Revoke from ${names.join(', ')} the role that owns the schema \`bus\`.`,
        { roles: free },
      ),
    ]
  },
}

/** Whether the login sees the rows of the tables that it may read. */
export const hiddenRowsCheck: Check = {
  name: 'rows that the login sees',
  needs: 'bus schema',
  async run({ database }) {
    const hidden = await findHiddenTable(database)
    if (hidden === undefined) return []
    const { table_name: table, role } = hidden
    return [
      found(
        'rows-hidden',
        `Row security is on for \`${table}\`, and no policy shows its rows to \`${role}\`: the table looks empty to it, and start is refused`,
        'As the owner of the schemas, which creates the policies: npx bossbus migrate',
        { table, role },
      ),
    ]
  },
}
