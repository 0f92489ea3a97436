import { setTimeout as pause } from 'node:timers/promises'
import type { BusLogger } from '../foundation/logger.ts'
import { describe, refuseUnknownKeys, invalidOption } from '../foundation/options.ts'
import { beginSql, type Database } from '../database/database.ts'
import { busRoles } from '../database/role-names.ts'
import { loadShippedSql } from '../migrations/shipped-sql.ts'

/** Options of `bus.migrate`. */
export interface MigrateOptions {
  /**
   * `'create'`: creates the roles of the bus and grants their privileges, if the bus's role may do so; otherwise one
   * log line states what an administrator must run. `'skip'`: leaves roles and grants unchanged. `bus.tenant(id)` needs
   * the roles.
   * @defaultValue `'create'`
   */
  readonly roles?: 'create' | 'skip' | undefined
  /**
   * What to do with an older pg-boss in the same schema that something else also uses. `'refuse'`: it is left
   * unchanged, and nothing is written. `'migrate'`: it is upgraded to the version of the bus; everything that uses it
   * must then run a pg-boss that supports that version. See also `bossSchema` of `createBus`.
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

/** Maximum number of tries of a write to the cluster's shared catalogues, which another database may write concurrently. */
const maxTries = 10

interface RoleState extends Record<string, unknown> {
  readonly missing: string[]
  readonly may_create: boolean
  readonly user_name: string
}

/**
 * Creates missing roles, grants missing privileges, and lets the bus's role become `bus_tenant`. Writes nothing if
 * everything exists. Anything that the role may not do is skipped, with one warning that states what to run: delivery
 * works without it.
 *
 * One process at a time in this database, under the lock of the migration. Other databases of the cluster may do the
 * same concurrently, so writes to shared catalogues are retried.
 */
export async function ensureRoles(database: Database, logger: BusLogger): Promise<void> {
  const state = await readRoles(database)
  if (state.missing.length > 0 && !state.may_create) return warn(logger, state, state.missing)
  for (const role of state.missing) await retryConcurrentWrite(async () => createRole(database, role))
  try {
    const { roles } = await loadShippedSql()
    await retryConcurrentWrite(async () =>
      database.transaction(
        async (client) => client.query(roles),
        `${beginSql}; set local search_path = pg_catalog, pg_temp`,
      ),
    )
  } catch (error) {
    if (!isRefusal(error)) throw error
    logger.warn(
      { role: state.user_name, reason: (error as Error).message },
      'the privileges of the bus roles could not be granted: run bus.migrate() once as the owner of the schema `bus`',
    )
    return
  }
  if (!(await mayBecomeTenant(database))) await grantTenantRole(database, logger, state)
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
    // Another database of the cluster has created it in the meantime.
    if (['42710', '23505'].includes(sqlStateOf(error))) return
    throw error
  })
}

/** Whether this role may `set role bus_tenant`. From PostgreSQL 16 on, membership alone does not permit it. */
async function mayBecomeTenant(database: Database): Promise<boolean> {
  const { rows } = await database.query<{ may: boolean }>(
    `select pg_has_role(current_user, 'bus_tenant', case when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end) as may`,
  )
  return rows[0]?.may === true
}

const becomeTenantSql = `do $body$ begin
  if current_setting('server_version_num')::int >= 160000 then
    execute format('grant bus_tenant to %I with inherit false, set true', current_user);
  else
    execute format('grant bus_tenant to %I', current_user);
  end if;
end $body$`

/** What {@link ensureRoles} would do. */
export interface RolesPlan {
  /** Roles that are created. */
  readonly missing: readonly string[]
  /** Whether this role may do so. If not, an administrator has to. */
  readonly mayCreate: boolean
  /** As a script for psql. Grants that exist are not written again. */
  readonly sql: string
}

/** Only reads. */
export async function planRoles(database: Database): Promise<RolesPlan> {
  const { missing, may_create: mayCreate } = await readRoles(database)
  const { roles } = await loadShippedSql()
  const isTenant = !missing.includes('bus_tenant') && (await mayBecomeTenant(database))
  const sql = [
    ...missing.map((role) => `create role ${role} nologin;`),
    'begin;',
    'set local search_path = pg_catalog, pg_temp;',
    roles.trim(),
    'commit;',
    ...(isTenant ? [] : [`${becomeTenantSql};`]),
  ].join('\n')
  return { missing, mayCreate, sql }
}

async function grantTenantRole(database: Database, logger: BusLogger, state: RoleState): Promise<void> {
  try {
    // Without inheritance: the privileges of bus_tenant are not added to those of this role.
    await retryConcurrentWrite(async () => database.query(becomeTenantSql))
  } catch (error) {
    if (!isRefusal(error)) throw error
    warn(logger, state, [])
  }
}

/** Logs what an administrator must run, once for the cluster, if the bus's role may not. */
function warn(logger: BusLogger, { user_name: role }: RoleState, missing: readonly string[]): void {
  const name = `"${role.replaceAll('"', '""')}"`
  const statements = [...missing.map((r) => `create role ${r} nologin;`), `grant bus_tenant to ${name};`]
  logger.warn(
    { role, missing, sql: statements.join(' ') },
    'the roles of the bus are incomplete, and this role may not create them: have an administrator run `sql`, then run bus.migrate() again. Until then bus.tenant(id) does not work',
  )
}

/**
 * Retries a statement that failed because of a concurrent write to the same row of a shared catalogue. That error has
 * no SQLSTATE of its own.
 */
async function retryConcurrentWrite(work: () => Promise<unknown>): Promise<void> {
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

/** `insufficient_privilege`, or a missing ADMIN OPTION, which means the same. */
function isRefusal(error: unknown): boolean {
  return ['42501', '0LP01'].includes(sqlStateOf(error))
}

function sqlStateOf(error: unknown): string {
  const { sqlState } = error as { sqlState?: unknown }
  return typeof sqlState === 'string' ? sqlState : ''
}
