import { busRoles } from '../../database/role-names.ts'
import { found, quoteName, type DoctorFinding } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

interface Login extends Record<string, unknown> {
  readonly role: string
  readonly is_superuser: boolean
  readonly bypasses: boolean
  readonly owns_bus: boolean
  readonly owns_boss: boolean
  readonly member_of: readonly string[]
  readonly missing: readonly string[]
  readonly may_become_tenant: boolean
  readonly sees_sessions: boolean
}

/** What the login at hand may do, by the roles that it is a member of. */
export const loginCheck: Check = {
  name: 'role of the connection',
  needs: 'bus schema',
  async run({ read, database, facts }) {
    const [login] = await read<Login>(
      `select r.rolname as role, r.rolsuper as is_superuser, r.rolbypassrls as bypasses,
         coalesce((select pg_has_role(n.nspowner, 'usage') from pg_namespace n where n.nspname = 'bus'), false) as owns_bus,
         coalesce((select pg_has_role(n.nspowner, 'usage') from pg_namespace n where n.nspname = '${database.bossSchemaName}'), false) as owns_boss,
         array(select b.rolname::text from pg_roles b where b.rolname in (${sqlRoles}) and pg_has_role(b.oid, 'usage') order by 1) as member_of,
         array(select w.name from unnest(array[${sqlRoles}]) as w (name) where not exists (select from pg_roles b where b.rolname = w.name)) as missing,
         exists (select from pg_roles b where b.rolname = 'bus_tenant' and
           pg_has_role(b.oid, case when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end)) as may_become_tenant,
         pg_has_role('pg_read_all_stats', 'usage') as sees_sessions
       from pg_roles r where r.rolname = current_user`,
    )
    if (login === undefined) return []
    return [
      ...findRoles(login),
      ...findUnrestricted(login),
      ...findUnprivileged(login),
      ...findHidden(login, facts.database),
    ]
  },
}

const sqlRoles = busRoles.map((role) => `'${role}'`).join(', ')

function findRoles({ missing, role }: Login): readonly DoctorFinding[] {
  if (missing.length === 0) return []
  return [
    found(
      'roles-missing',
      `The server lacks the roles ${missing.join(', ')}: bus.tenant(id) does not work, and no service can be given less than everything`,
      `As a role that may create roles: ${missing.map((name) => `create role ${name} nologin;`).join(' ')} grant bus_tenant to ${quoteName(role)}; then: npx bossbus migrate`,
      { missing },
    ),
  ]
}

function findUnrestricted({ role, is_superuser: isSuperuser, bypasses }: Login): readonly DoctorFinding[] {
  if (!isSuperuser && !bypasses) return []
  const name = quoteName(role)
  return [
    found(
      'login-unrestricted',
      `The login \`${role}\` ${isSuperuser ? 'is a superuser' : 'has BYPASSRLS'}: neither row security nor bus.source_rules bind it, so one wrong statement of the service reads, or publishes for, every tenant`,
      isSuperuser
        ? `Give the service a login of its own: create role payments login password '…'; grant bus_publisher, bus_worker, bus_tenant to payments;`
        : `alter role ${name} nobypassrls;`,
      { role, isSuperuser },
    ),
  ]
}

function findUnprivileged(login: Login): readonly DoctorFinding[] {
  const { role, is_superuser: isSuperuser, owns_bus: ownsBus, owns_boss: ownsBoss } = login
  const { member_of: memberOf, missing, may_become_tenant: mayBecomeTenant } = login
  const isFree = isSuperuser || ownsBus
  const isMember = (name: string): boolean => isFree || memberOf.includes(name)
  const mayPublish = isMember('bus_publisher') || isMember('bus_worker')
  const data = {
    role,
    memberOf,
    mayPublish,
    mayDeliver: isMember('bus_worker'),
    mayOperate: isMember('bus_operator'),
    mayMigrate: isSuperuser || (ownsBus && ownsBoss),
    mayReadTenants: mayBecomeTenant,
  }
  const name = quoteName(role)
  if (!mayPublish && !data.mayOperate)
    return [
      found(
        'login-without-privileges',
        `The login \`${role}\` is a member of no role of the bus${memberOf.length > 0 ? ` but ${memberOf.join(', ')}` : ''}: it may neither publish nor deliver`,
        `As the owner of the roles: grant bus_publisher, bus_worker to ${name};`,
        data,
      ),
    ]
  if (mayBecomeTenant || missing.includes('bus_tenant')) return []
  return [
    found(
      'tenant-reads-impossible',
      `The login \`${role}\` may not become \`bus_tenant\`: bus.tenant(id) fails with BUS_ROLE_MISSING, deliveries are not affected`,
      `As the owner of the roles: grant bus_tenant to ${name}; (PostgreSQL 16 and newer: … with inherit false, set true)`,
      data,
    ),
  ]
}

function findHidden(
  { role, sees_sessions: seesSessions }: Login,
  database: string,
): readonly DoctorFinding[] {
  if (seesSessions) return []
  return [
    found(
      'sessions-hidden',
      `The login \`${role}\` sees only its own sessions of \`${database}\`: old transactions and slow statements of others are not found, which keep dead rows and slow deliveries down`,
      `As a superuser: grant pg_read_all_stats to ${quoteName(role)};`,
      { role },
    ),
  ]
}
