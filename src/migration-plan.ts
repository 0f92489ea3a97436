import type { Database } from './database/database.ts'
import { assertMigratableBoss, planBoss } from './delivery/jobs/boss-version.ts'
import { hasQueue } from './delivery/jobs/dead-letter-jobs.ts'
import { findPendingMigrations } from './migrations/migrate.ts'
import { planRoles } from './tenancy/roles.ts'

/** What `bus.migrate()` would do to a database. */
export interface MigrationPlan {
  /** Of the schema `bus`: how many migrations it has, and those that it would get. */
  readonly bus: { readonly appliedCount: number; readonly migrations: readonly string[] }
  /** The version of pg-boss's schema, before (undefined: it is not there) and after. */
  readonly boss: {
    readonly schema: string
    readonly version: number | undefined
    readonly nextVersion: number
  }
  /** Subscriptions whose queues would be created. */
  readonly queues: readonly string[]
  /** Roles that would be created, and whether the role of the connection may do so. */
  readonly roles: { readonly missing: readonly string[]; readonly mayCreate: boolean }
  /**
   * All of it as a script for psql, but for the queues, which pg-boss creates itself: a comment at its end names them. Grants are in it
   * always: those that exist are not written again.
   */
  readonly sql: string
}

/**
 * Only reads.
 *
 * @param subscriptions - the names of those that are declared
 * @throws as `bus.migrate()`
 */
export async function planMigration(
  database: Database,
  subscriptions: readonly string[],
  mayMigrateShared: boolean,
): Promise<MigrationPlan> {
  const pending = await findPendingMigrations(database)
  await assertMigratableBoss(database, { isBusThere: pending.appliedCount > 0, mayMigrateShared })
  const { sql: bossSql, ...boss } = await planBoss(database)
  const queues: string[] = []
  for (const name of subscriptions)
    if (boss.version === undefined || !(await hasQueue(database, database, name))) queues.push(name)
  const { sql: rolesSql, ...roles } = await planRoles(database)
  const parts = [
    ['The schema bus', pending.sql],
    ['pg-boss', bossSql],
    ['Roles and what they may do', rolesSql],
  ] as const
  const script = parts.filter(([, sql]) => sql !== '').map(([title, sql]) => `-- ${title}.\n\n${sql}`)
  // Names of subscriptions are letters, digits, dots, hyphens and underscores.
  if (queues.length > 0)
    script.push(
      `-- Not in this script: the queues of ${queues.join(', ')}. Run \`bossbus migrate\` after it, which creates them.`,
    )
  return {
    bus: { appliedCount: pending.appliedCount, migrations: pending.migrations.map(({ name }) => name) },
    boss: { schema: database.bossSchemaName, ...boss },
    ...{ queues, roles },
    sql: script.join('\n\n'),
  }
}
