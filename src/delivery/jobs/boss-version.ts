import { getConstructionPlans, getMigrationPlans, PgBoss } from 'pg-boss'
import { DatabaseError } from '../../foundation/errors.ts'
import type { Database } from '../../database/database.ts'
import { toBusError } from '../../database/database-errors.ts'
import { assertBossColumns } from './boss-columns.ts'

/** The schema version of this pg-boss, read from its own installation script. */
export const bossVersion = Number(/version\(version\) VALUES \('(\d+)'\)/.exec(getConstructionPlans())?.[1])

/** The oldest schema that this pg-boss can migrate: that of pg-boss 11. Migrating an older one would break it. */
export const oldestBossVersion = 25

/** The contents of pg-boss's schema. */
interface FoundBoss {
  readonly version: number | undefined
  /** Whether it contains tables of something other than pg-boss, or of a pg-boss that cannot be recognised. */
  readonly isOccupied: boolean
  /** Some queues that do not belong to the bus. */
  readonly foreignQueues: readonly string[]
}

/**
 * Verifies, before anything is migrated, that pg-boss may be installed or upgraded in this schema: never over a pg-boss
 * that something else uses, unless that is requested. Something else uses it if it has queues that do not belong to the
 * bus, or existed before the bus.
 *
 * @throws {@link DatabaseError} `BUS_BOSS_SCHEMA_TOO_OLD`, `BUS_BOSS_SCHEMA_IN_USE`, `BUS_BOSS_SCHEMA_TOO_NEW`
 */
export async function assertMigratableBoss(
  database: Database,
  { isBusThere, mayMigrateShared }: { readonly isBusThere: boolean; readonly mayMigrateShared: boolean },
): Promise<void> {
  const found = await readBoss(database)
  const { version } = found
  if (found.isOccupied) throw inUse(database, 'holds something else than pg-boss')
  if (version === undefined || version === bossVersion) return
  if (version < oldestBossVersion) throw tooOld(database, version)
  if (version > bossVersion) return assertCompatible(database, version)
  if (mayMigrateShared) return
  const [queue] = found.foreignQueues
  if (queue === undefined && isBusThere) return
  const user = queue === undefined ? 'was there before the bus' : `has other queues, such as \`${queue}\``
  throw new DatabaseError(
    'BUS_BOSS_SCHEMA_IN_USE',
    `pg-boss in the schema \`${database.bossSchemaName}\` ${user}, and is older (version ${version} of its schema, the bus needs ${bossVersion}): ` +
      `have the bus's own beside it with createBus({ bossSchema: 'bus_jobs' }), or update it for both with bus.migrate({ sharedBoss: 'migrate' }) once every service that uses it runs pg-boss 12`,
  )
}

/** What a migration would do to the schema of pg-boss. */
export interface BossPlan {
  /** The version of its schema that is there. Undefined: none is. */
  readonly version: number | undefined
  /** The version that it would have then. */
  readonly nextVersion: number
  /** As a script for psql. Empty if there is nothing to do. */
  readonly sql: string
}

/** Only reads. */
export async function planBoss(database: Database): Promise<BossPlan> {
  const { version } = await readVersion(database)
  if (version === undefined)
    return { version, nextVersion: bossVersion, sql: getConstructionPlans(database.bossSchema).trim() }
  if (version >= bossVersion) return { version, nextVersion: version, sql: '' }
  return { version, nextVersion: bossVersion, sql: getMigrationPlans(database.bossSchema, version).trim() }
}

/**
 * Verifies that pg-boss is installed, and that its schema works with this version of pg-boss and with the statements of
 * the bus. Returns whether the schema is newer.
 *
 * @throws {@link DatabaseError} `BUS_SCHEMA_MISSING`, `BUS_BOSS_SCHEMA_TOO_OLD`, `BUS_BOSS_SCHEMA_OUTDATED`, `BUS_BOSS_SCHEMA_TOO_NEW`, `BUS_BOSS_SCHEMA_UNSUPPORTED`
 */
export async function assertUsableBoss(database: Database): Promise<boolean> {
  const isNewer = await assertUsableVersion(database)
  await assertBossColumns(database)
  return isNewer
}

async function assertUsableVersion(database: Database): Promise<boolean> {
  const { version } = await readVersion(database)
  if (version === bossVersion) return false
  if (version === undefined)
    throw new DatabaseError(
      'BUS_SCHEMA_MISSING',
      `pg-boss is missing in the schema \`${database.bossSchemaName}\`: run bus.migrate() before bus.start()`,
    )
  if (version < oldestBossVersion) throw tooOld(database, version)
  if (version < bossVersion)
    throw new DatabaseError(
      'BUS_BOSS_SCHEMA_OUTDATED',
      `pg-boss in the schema \`${database.bossSchemaName}\` is at version ${version} of its schema, and the bus needs ${bossVersion}: run bus.migrate() before bus.start()`,
    )
  await assertCompatible(database, version)
  return true
}

/** The version of pg-boss's schema. Undefined if it is not there. */
export async function readBossVersion(
  database: Pick<Database, 'query' | 'bossSchema'>,
): Promise<number | undefined> {
  return (await readVersion(database)).version
}

async function readVersion({ query, bossSchema }: Pick<Database, 'query' | 'bossSchema'>): Promise<{
  readonly version: number | undefined
  readonly hasRelations: boolean
}> {
  const { rows } = await query<{ has_version: boolean; has_jobs: boolean; has_relations: boolean }>(
    `select to_regclass($1 || '.version') is not null as has_version, to_regclass($1 || '.job') is not null as has_jobs,
       exists (select from pg_class c where c.relnamespace = to_regnamespace($1)) as has_relations`,
    [bossSchema],
  )
  const [found] = rows
  const hasRelations = found?.has_relations === true
  if (found?.has_version !== true || !found.has_jobs) return { version: undefined, hasRelations }
  const { rows: versions } = await query<{ version: string }>(
    `select version::text from ${bossSchema}.version limit 1`,
  )
  const version = Number.parseInt(versions[0]?.version ?? '', 10)
  return { version: Number.isNaN(version) ? undefined : version, hasRelations }
}

async function readBoss(database: Database): Promise<FoundBoss> {
  try {
    const { version, hasRelations } = await readVersion(database)
    if (version === undefined) return { version, isOccupied: hasRelations, foreignQueues: [] }
    if (version < oldestBossVersion) return { version, isOccupied: false, foreignQueues: [] }
    const { rows } = await database.query<{ name: string }>(
      `select name from ${database.bossSchema}.queue where name not like 'bus.%' order by name limit 3`,
    )
    return { version, isOccupied: false, foreignQueues: rows.map(({ name }) => name) }
  } catch (error) {
    const refused = toBusError(error)
    if (refused.code !== 'BUS_PERMISSION_DENIED') throw refused
    throw inUse(database, 'belongs to a role whose tables this one may not read', refused)
  }
}

/**
 * Uses pg-boss's own verification of its schema: everything that its statements refer to must exist. Additional objects
 * do no harm.
 */
async function assertCompatible(database: Database, version: number): Promise<void> {
  const boss = new PgBoss({
    db: { executeSql: (text, values) => database.pool.query(text, values) },
    schema: database.bossSchema,
    migrate: false,
  })
  const drift = await boss.detectSchemaDrift()
  const missing = [
    ...drift.missingTables,
    ...drift.missingFunctions.map(({ name }) => `${name}()`),
    ...drift.columnDrift.flatMap(({ table, missingColumns }) =>
      missingColumns.map((column) => `${table}.${column}`),
    ),
    ...(drift.enumDrift === null ? [] : [drift.enumDrift.name]),
  ]
  if (missing.length === 0) return
  throw new DatabaseError(
    'BUS_BOSS_SCHEMA_TOO_NEW',
    `pg-boss in the schema \`${database.bossSchemaName}\` is at version ${version} of its schema, and lacks what version ${bossVersion} has (${missing.slice(0, 5).join(', ')}): ` +
      "update bossbus in this service, or have the bus's own beside it with createBus({ bossSchema: 'bus_jobs' })",
  )
}

function tooOld({ bossSchemaName }: Database, version: number): DatabaseError {
  return new DatabaseError(
    'BUS_BOSS_SCHEMA_TOO_OLD',
    `The schema \`${bossSchemaName}\` holds pg-boss 10 or older (version ${version} of its schema), which cannot be updated in place: ` +
      "have the bus's own beside it with createBus({ bossSchema: 'bus_jobs' })",
  )
}

function inUse({ bossSchemaName }: Database, why: string, cause?: unknown): DatabaseError {
  return new DatabaseError(
    'BUS_BOSS_SCHEMA_IN_USE',
    `The schema \`${bossSchemaName}\` ${why}: have the bus's pg-boss in one of its own with createBus({ bossSchema: 'bus_jobs' })`,
    cause === undefined ? {} : { cause },
  )
}
