import { busRoles } from '../../database/role-names.ts'
import { found, quoteName, sqlRemedy, type DoctorFinding } from '../check/finding.ts'
import type { Check, CheckContext } from '../check/check.ts'
import type { Difference } from './differences.ts'
import { mendSql } from './mend-sql.ts'
import { readDifferences } from './drift.ts'
import type { ShippedDefinitions } from './shipped-definitions.ts'

/** At most so many grants are in the data of one finding. */
const maxGrants = 100

/** A privilege that is missing, or that was given in addition. */
interface Grant {
  readonly role: string
  /** Such as `select on table bus.events`. */
  readonly what: string
  readonly sql: string
}

/** What the roles of the bus, and everybody, were granted, against drizzle/roles.sql and the migrations. */
export const privilegesCheck: Check = {
  name: 'privileges of the roles',
  needs: 'both schemas',
  async run(context) {
    const roles = await readRoles(context)
    const { differences, shipped } = await readDifferences(context)
    const grants = differences
      .filter(({ kind }) => kind === 'grant')
      .map(readGrant)
      .filter(({ role }) => role === 'public' || roles.includes(role))
    const missing = [
      ...grants.flatMap(({ role, object, missing: lost }) => grantsOf('grant', lost, object, role)),
      ...differences.flatMap((difference) => missingPolicy(difference, roles, shipped)),
      ...(await readMissingOnQueues(context, roles)),
    ]
    const added = grants.flatMap(({ role, object, added: more }) => grantsOf('revoke', more, object, role))
    return [...findMissing(missing), ...findAdded(added)]
  },
}

async function readRoles({ read }: CheckContext): Promise<readonly string[]> {
  const rows = await read<{ name: string }>(
    `select rolname::text as name from pg_roles where rolname in (${busRoles.map((role) => `'${role}'`).join(', ')})`,
  )
  return rows.map(({ name }) => name)
}

interface GrantDifference {
  readonly object: string
  readonly role: string
  readonly missing: readonly string[]
  readonly added: readonly string[]
}

function readGrant({ name, expected, actual }: Difference): GrantDifference {
  const at = name.lastIndexOf(' to ')
  const [wanted, given] = [privilegesIn(expected), privilegesIn(actual)]
  return {
    object: name.slice(0, at),
    role: name.slice(at + ' to '.length),
    missing: wanted.filter((privilege) => !given.includes(privilege)),
    added: given.filter((privilege) => !wanted.includes(privilege)),
  }
}

function privilegesIn(definition: string | undefined): readonly string[] {
  return definition === undefined ? [] : definition.split(', ')
}

function grantsOf(
  verb: 'grant' | 'revoke',
  privileges: readonly string[],
  object: string,
  role: string,
): readonly Grant[] {
  if (privileges.length === 0) return []
  const list = privileges.join(', ')
  const sql = `${verb} ${list} on ${object} ${verb === 'grant' ? 'to' : 'from'} ${role}`
  return [{ role, what: `${list} on ${object}`, sql }]
}

function missingPolicy(
  difference: Difference,
  roles: readonly string[],
  shipped: ShippedDefinitions,
): readonly Grant[] {
  const { kind, name, expected, actual } = difference
  if (kind !== 'policy' || expected === undefined || expected === actual) return []
  const role = roles.find((each) => expected.includes(` to ${each}`))
  if (role === undefined) return []
  return [{ role, what: `the policy ${name}`, sql: mendSql(difference, shipped) ?? '' }]
}

/** Workers and operators read and write all tables of pg-boss. */
async function readMissingOnQueues(
  { read, database: { bossSchemaName } }: CheckContext,
  roles: readonly string[],
): Promise<readonly Grant[]> {
  const wanted = ['bus_worker', 'bus_operator'].filter((role) => roles.includes(role))
  if (wanted.length === 0) return []
  const list = wanted.map((role) => `('${role}')`).join(', ')
  const rows = await read<{ role: string; privileges: string; object: string }>(
    `select w.role, string_agg(p.privilege, ', ' order by p.privilege) as privileges,
       case c.relkind when 'S' then 'sequence ' else 'table ' end || c.oid::regclass as object
     from (values ${list}) as w (role)
     cross join pg_class c join pg_namespace n on n.oid = c.relnamespace
     cross join lateral unnest(case c.relkind when 'S' then array['usage'] else array['select', 'insert', 'update', 'delete'] end) as p (privilege)
     where n.nspname = '${bossSchemaName}' and c.relkind in ('r', 'p', 'v', 'S')
       and not case c.relkind when 'S' then has_sequence_privilege(w.role, c.oid, p.privilege) else has_table_privilege(w.role, c.oid, p.privilege) end
     group by w.role, c.oid, c.relkind order by 1, 3 limit ${maxGrants}`,
  )
  const schemas = await read<{ role: string }>(
    `select w.role from (values ${list}) as w (role) join pg_namespace n on n.nspname = '${bossSchemaName}'
     where not has_schema_privilege(w.role, n.oid, 'usage')`,
  )
  return [
    ...schemas.flatMap(({ role }) =>
      grantsOf('grant', ['usage'], `schema ${quoteName(bossSchemaName)}`, role),
    ),
    ...rows.flatMap(({ role, privileges, object }) =>
      grantsOf('grant', privileges.split(', '), object, role),
    ),
  ]
}

function findMissing(grants: readonly Grant[]): readonly DoctorFinding[] {
  const [first] = grants
  if (first === undefined) return []
  const roles = [...new Set(grants.map(({ role }) => role))].toSorted()
  return [
    found(
      'privileges-missing',
      `${roles.join(', ')} lack${roles.length === 1 ? 's' : ''} ${grants.length === 1 ? first.what : `${grants.length} privileges, such as ${first.what}`}: a service with such a login fails with BUS_PERMISSION_DENIED`,
      grants.length > 5
        ? 'As the owner of the schemas: npx bossbus migrate'
        : sqlRemedy('As the owner of the schemas: npx bossbus migrate, or', sqlOf(grants)),
      { grants: grants.slice(0, maxGrants), count: grants.length },
    ),
  ]
}

function findAdded(grants: readonly Grant[]): readonly DoctorFinding[] {
  const [first] = grants
  if (first === undefined) return []
  return [
    found(
      'privileges-added',
      `${first.role === 'public' ? 'Everybody' : first.role} was given ${first.what}${grants.length > 1 ? `, and ${grants.length - 1} more privileges were given` : ''}: the bus grants it to nobody, or to other roles, because events could be changed, invented or seen with it`,
      sqlRemedy('As the owner of the schemas', sqlOf(grants)),
      { grants: grants.slice(0, maxGrants), count: grants.length },
    ),
  ]
}

function sqlOf(grants: readonly Grant[]): readonly string[] {
  return grants.map(({ sql }) => sql)
}
