import { setTimeout as pause } from 'node:timers/promises'
import type { BusLogger } from '../foundation/logger.ts'
import { describe, refuseUnknownKeys, invalidOption } from '../foundation/options.ts'
import { beginSql, type Database } from '../database/database.ts'
import { busRoles } from '../database/role-names.ts'
import { loadShippedSql } from '../migrations/shipped-sql.ts'

/** What `bus.migrate` takes. */
export interface MigrateOptions {
  /**
   * `'create'`: makes the roles of the bus and grants them what they need, where the role of the bus may; otherwise says
   * once what an administrator has to run. `'skip'`: leaves roles and grants alone. `bus.tenant(id)` needs them.
   * @defaultValue `'create'`
   */
  readonly roles?: 'create' | 'skip' | undefined
  /**
   * What becomes of an older pg-boss that something else uses too, in the same schema. `'refuse'`: it is left alone, and nothing
   * is written. `'migrate'`: it is brought to the version of the bus; everything that uses it has to run a pg-boss that can
   * work with that. See also `bossSchema` of `createBus`.
   * @defaultValue `'refuse'`
   */
  readonly sharedBoss?: 'refuse' | 'migrate' | undefined
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveMigrateOptions(given: unknown): {
  readonly roles: 'create' | 'skip'
  readonly sharedBoss: 'refuse' | 'migrate'
} {
  if (given === null || typeof given !== 'object')
    throw invalidOption(`Expected options of migrate, got ${describe(given)}`)
  refuseUnknownKeys(given, ['roles', 'sharedBoss'], 'migrate')
  const { roles = 'create', sharedBoss = 'refuse' } = given as { roles?: unknown; sharedBoss?: unknown }
  if (roles !== 'create' && roles !== 'skip')
    throw invalidOption(`Expected \`roles\` to be 'create' or 'skip', got ${describe(roles)}`, 'roles')
  if (sharedBoss !== 'refuse' && sharedBoss !== 'migrate')
    throw invalidOption(
      `Expected \`sharedBoss\` to be 'refuse' or 'migrate', got ${describe(sharedBoss)}`,
      'sharedBoss',
    )
  return { roles, sharedBoss }
}

/** How often a write to the catalogues of the cluster is tried that another database may be making too. */
const maxTries = 10

interface RoleState extends Record<string, unknown> {
  readonly missing: string[]
  readonly may_create: boolean
  readonly user_name: string
}

/**
 * Makes the roles that are missing, grants what is not granted, and lets the role of the bus become `bus_tenant`. Writes
 * nothing where all is there. What it may not do it leaves, with one warning that says what to run: the bus delivers
 * without.
 *
 * One process at a time in this database, by the lock of the migration; others may do the same in other databases of the
 * cluster, so what they share is tried again.
 */
export async function ensureRoles(database: Database, logger: BusLogger): Promise<void> {
  const state = await readRoles(database)
  if (state.missing.length > 0 && !state.may_create) return warn(logger, state, state.missing)
  for (const role of state.missing) await tryAgain(async () => createRole(database, role))
  try {
    const { roles } = await loadShippedSql()
    await tryAgain(async () =>
      database.transaction(
        async (client) => client.query(roles),
        `${beginSql}; set local search_path = pg_catalog, pg_temp`,
      ),
    )
  } catch (error) {
    if (!isRefusal(error)) throw error
    logger.warn(
      { role: state.user_name, reason: (error as Error).message },
      'the roles of the bus could not be granted what they need: run bus.migrate() once as the owner of the schema `bus`',
    )
    return
  }
  if (!(await mayBecomeTenant(database))) await joinTenants(database, logger, state)
}

async function readRoles(database: Database): Promise<RoleState> {
  const { rows } = await database.query<RoleState>(
    `select r.rolsuper or r.rolcreaterole as may_create, r.rolname as user_name,
       array(select w.name from unnest($1::text[]) as w (name) where not exists (select from pg_roles p where p.rolname = w.name)) as missing
     from pg_roles r where r.rolname = current_user`,
    [busRoles],
  )
  return rows[0] as RoleState
}

async function createRole(database: Database, role: string): Promise<void> {
  await database.query(`create role ${role} nologin`).catch((error: unknown) => {
    // Another database of the cluster has made it meanwhile.
    if (['42710', '23505'].includes(sqlStateOf(error))) return
    throw error
  })
}

/** Whether this role may `set role bus_tenant`. From PostgreSQL 16 on membership alone does not say so. */
async function mayBecomeTenant(database: Database): Promise<boolean> {
  const { rows } = await database.query<{ may: boolean }>(
    `select pg_has_role(current_user, 'bus_tenant', case when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end) as may`,
  )
  return rows[0]?.may === true
}

async function joinTenants(database: Database, logger: BusLogger, state: RoleState): Promise<void> {
  try {
    // Only to become it: what it may do is not added to what this role may.
    await tryAgain(async () =>
      database.query(`do $body$ begin
  if current_setting('server_version_num')::int >= 160000 then
    execute format('grant bus_tenant to %I with inherit false, set true', current_user);
  else
    execute format('grant bus_tenant to %I', current_user);
  end if;
end $body$`),
    )
  } catch (error) {
    if (!isRefusal(error)) throw error
    warn(logger, state, [])
  }
}

/** What an administrator has to run, once for the cluster, where the role of the bus may not. */
function warn(logger: BusLogger, { user_name: role }: RoleState, missing: readonly string[]): void {
  const name = `"${role.replaceAll('"', '""')}"`
  const statements = [...missing.map((r) => `create role ${r} nologin;`), `grant bus_tenant to ${name};`]
  logger.warn(
    { role, missing, sql: statements.join(' ') },
    'the roles of the bus are not complete, and this role may not make them: let an administrator run `sql`, then run bus.migrate() again. Until then bus.tenant(id) does not work',
  )
}

/** Repeats what a concurrent write to the same row of a shared catalogue made fail, which has no SQLSTATE of its own. */
async function tryAgain(work: () => Promise<unknown>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await work()
      return
    } catch (error) {
      if (tries >= maxTries || !['XX000', '23505', '42710', '40P01', '40001'].includes(sqlStateOf(error)))
        throw error
      await pause(20 * tries * (1 + Math.random()))
    }
  }
}

/** `insufficient_privilege`, or an ADMIN OPTION that is missing, which is the same. */
function isRefusal(error: unknown): boolean {
  return ['42501', '0LP01'].includes(sqlStateOf(error))
}

function sqlStateOf(error: unknown): string {
  const { sqlState } = error as { sqlState?: unknown }
  return typeof sqlState === 'string' ? sqlState : ''
}
