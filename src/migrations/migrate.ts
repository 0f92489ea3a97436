import { ConfigurationError, DatabaseError } from '../foundation/errors.ts'
import type { BusLogger } from '../foundation/logger.ts'
import { withLock } from '../database/advisory-lock.ts'
import { forBossSchema } from '../database/boss-schema.ts'
import type { BusClient } from '../database/bus-client.ts'
import type { Database, Executor } from '../database/database.ts'
import { toBusError } from '../database/database-errors.ts'
import { checkRowSecurity, checkServer } from './server-check.ts'
import { beginOn, beginWriting } from '../database/session-settings.ts'
import { hashOf, isSameMigration, loadShippedSql, type Migration } from './shipped-sql.ts'
import { locks } from '../database/locks.ts'

/** Steps before and after the migrations of the schema `bus`. */
export interface MigrationSteps {
  /** Throws before anything is written, to refuse the migration. */
  readonly before: (isBusThere: boolean) => Promise<void>
  /** @param applied - the migrations that the database had before */
  readonly after: (applied: number) => Promise<void>
  readonly logger: BusLogger
}

/**
 * Upgrades the schema `bus` to this version, between two steps, all under one advisory lock. Any number of processes
 * may start at once: each of them finds everything done when it gets the lock.
 *
 * @throws a {@link DatabaseError} `BUS_SCHEMA_TOO_NEW` if a newer version of the bus has migrated this database
 * @throws a {@link DatabaseError} `BUS_SCHEMA_UNKNOWN` if other files than those of this version have migrated it
 * @throws a {@link ConfigurationError} `BUS_BOSS_SCHEMA_MISMATCH`
 */
export async function migrateSchema(database: Database, steps: MigrationSteps): Promise<void> {
  await checkServer(database)
  await checkRowSecurity(database)
  await withLock(database, locks.migrate, async () => migrateAlone(database, steps)).catch(
    (error: unknown) => {
      throw toBusError(error)
    },
  )
}

async function migrateAlone(database: Database, steps: MigrationSteps): Promise<void> {
  const beganAt = performance.now()
  const session = await database.openSession()
  try {
    const { migrations } = await loadShippedSql()
    const applied = await countApplied(session, migrations)
    if (applied > migrations.length) throw tooNew(applied, migrations.length)
    if (applied > 0) await checkBossSchema(session, database.bossSchemaName)
    await steps.before(applied > 0)
    if (applied < migrations.length) {
      await applyMigrations(session, migrations.slice(applied), database.bossSchemaName)
      await database.faultPoint?.('migrate.applied')
    }
    await session.query('select bus.create_partitions()')
    await database.faultPoint?.('migrate.partitions-created')
    await steps.after(applied)
    const durationMs = Math.round(performance.now() - beganAt)
    steps.logger.info(
      { from: applied, to: migrations.length, durationMs },
      applied < migrations.length ? 'the schema `bus` was migrated' : 'the schema `bus` is up to date',
    )
  } finally {
    await session.end().catch(() => {})
  }
}

/** What is there before the first migration. */
const preparations = [
  'create schema if not exists bus',
  'create table if not exists bus.migrations (id serial primary key, hash text not null, created_at bigint)',
]

/** What a migration of the schema `bus` would apply. */
export interface PendingMigrations {
  /** How many the database has. */
  readonly appliedCount: number
  /** In their order. */
  readonly migrations: readonly Migration[]
  /** Their statements, as a script for psql. Empty if there are none. */
  readonly sql: string
}

/**
 * Only reads.
 *
 * @throws as {@link migrateSchema}
 */
export async function findPendingMigrations(database: Database): Promise<PendingMigrations> {
  await checkServer(database)
  await checkRowSecurity(database)
  const { migrations: shipped } = await loadShippedSql()
  const appliedCount = await countApplied(database, shipped)
  if (appliedCount > shipped.length) throw tooNew(appliedCount, shipped.length)
  if (appliedCount > 0) await checkBossSchema(database, database.bossSchemaName)
  const migrations = shipped.slice(appliedCount)
  const sql =
    migrations.length === 0
      ? ''
      : [
          ...preparations.map((statement) => `${statement};`),
          `${beginWriting};`,
          'set local search_path = pg_catalog, pg_temp;',
          ...migrations.flatMap((migration) => [
            `\n-- ${migration.name}`,
            forBossSchema(migration.text, database.bossSchemaName).trim(),
            `insert into bus.migrations (hash, created_at) values ('${hashOf(migration)}', ${migration.createdAt});`,
          ]),
          'commit;',
          'select bus.create_partitions();',
        ].join('\n')
  return { appliedCount, migrations, sql }
}

/**
 * Applies migrations that the database does not have yet, all in one transaction. The table that says which it has is that of
 * Drizzle's migrator, and is created before.
 *
 * In this transaction only PostgreSQL's own functions are found: functions keep the references that were resolved when
 * they were created, and somebody may have added a better match to the schema `public`. The setting is local to the
 * transaction, so that no pooler passes it to another client. References to pg-boss's schema are rewritten to the
 * configured one.
 */
async function applyMigrations(
  session: BusClient,
  migrations: readonly Migration[],
  bossSchemaName: string,
): Promise<void> {
  for (const statement of preparations) await session.query(statement)
  await session.query(`${beginOn(session, beginWriting)}; set local search_path = pg_catalog, pg_temp`)
  try {
    for (const migration of migrations) {
      for (const statements of migration.text.split('--> statement-breakpoint'))
        await session.query(forBossSchema(statements, bossSchemaName))
      await session.query('insert into bus.migrations (hash, created_at) values ($1, $2)', [
        hashOf(migration),
        migration.createdAt,
      ])
    }
    await session.query('commit')
  } catch (error) {
    await session.query('rollback').catch(() => {})
    throw error
  }
}

/**
 * Verifies that the database has exactly the schema that this version of the bus requires.
 *
 * @throws a {@link DatabaseError} `BUS_DATABASE_UNSUPPORTED`, `BUS_SETTING_UNSUPPORTED`, `BUS_PERMISSION_DENIED`, `BUS_SCHEMA_MISSING`, `BUS_SCHEMA_OUTDATED`, `BUS_SCHEMA_TOO_NEW`, `BUS_SCHEMA_UNKNOWN`
 * @throws a {@link ConfigurationError} `BUS_BOSS_SCHEMA_MISMATCH`
 */
export async function checkSchema(executor: Executor & Pick<Database, 'bossSchemaName'>): Promise<void> {
  await checkServer(executor)
  await checkRowSecurity(executor)
  await checkMigrations(executor)
}

/**
 * Verifies that the database has the migrations of this version of the bus, and that its pg-boss is in the configured schema.
 *
 * @throws a {@link DatabaseError} `BUS_SCHEMA_MISSING`, `BUS_SCHEMA_OUTDATED`, `BUS_SCHEMA_TOO_NEW`, `BUS_SCHEMA_UNKNOWN`
 * @throws a {@link ConfigurationError} `BUS_BOSS_SCHEMA_MISMATCH`
 */
export async function checkMigrations(
  executor: Pick<Executor, 'query'> & Pick<Database, 'bossSchemaName'>,
): Promise<void> {
  const { migrations } = await loadShippedSql()
  const shipped = migrations.length
  const applied = await countApplied(executor, migrations)
  if (applied < shipped) {
    const where = await whereItIs(executor)
    const remedy = 'run `npx bossbus migrate`, or bus.migrate() before bus.start()'
    if (applied === 0)
      throw new DatabaseError('BUS_SCHEMA_MISSING', `The schema \`bus\` is missing in ${where}: ${remedy}`)
    throw new DatabaseError(
      'BUS_SCHEMA_OUTDATED',
      `The schema \`bus\` in ${where} is at migration ${applied} of ${shipped}: ${remedy}`,
    )
  }
  if (applied > shipped) throw tooNew(applied, shipped)
  await checkBossSchema(executor, executor.bossSchemaName)
}

/** The number of migrations that this version of the bus has. Read once. */
export async function countMigrations(): Promise<number> {
  shippedCount ??= loadShippedSql().then(({ migrations }) => migrations.length)
  return shippedCount
}

let shippedCount: Promise<number> | undefined

/** Names the database and its server, so that a wrong one is recognised. */
async function whereItIs(executor: Pick<Executor, 'query'>): Promise<string> {
  const { rows } = await executor.query<{ name: string; host: string | null; port: number }>(
    'select current_database() as name, host(inet_server_addr()) as host, inet_server_port() as port',
  )
  const { name = '', host, port } = rows[0] ?? {}
  return `the database \`${name}\` at ${host === null || host === undefined ? 'the local socket' : `${host}:${port}`}`
}

/** A database has one schema for jobs: with two, each would hold a part of them. */
async function checkBossSchema(executor: Pick<Executor, 'query'>, wanted: string): Promise<void> {
  const { rows } = await executor.query<{ name: string }>('select bus.boss_schema() as name')
  const name = rows[0]?.name ?? ''
  if (name === wanted) return
  throw new ConfigurationError(
    'BUS_BOSS_SCHEMA_MISMATCH',
    `The jobs of this database are in the schema \`${name}\`, and \`bossSchema\` says \`${wanted}\`: set \`bossSchema: '${name}'\` in every service that uses it`,
  )
}

function tooNew(applied: number, shipped: number): DatabaseError {
  return new DatabaseError(
    'BUS_SCHEMA_TOO_NEW',
    `The schema \`bus\` is at migration ${applied}, but this version of bossbus knows ${shipped}: update bossbus in this service`,
  )
}

/**
 * How many migrations a database has. Those that this version ships too must be the same: on top of others its own would damage
 * what is there.
 *
 * @throws a {@link DatabaseError} `BUS_SCHEMA_UNKNOWN`
 */
async function countApplied(
  executor: Pick<Executor, 'query'>,
  shipped: readonly Migration[],
): Promise<number> {
  const { rows: found } = await executor.query<{ there: boolean }>(
    "select to_regclass('bus.migrations') is not null as there",
  )
  if (found[0]?.there !== true) return 0
  const { rows: applied } = await executor.query<{ hash: string }>(
    'select hash from bus.migrations order by created_at, id',
  )
  const unknown = shipped
    .slice(0, applied.length)
    .findIndex((each, index) => !isSameMigration(each, applied[index]?.hash))
  if (unknown === -1) return applied.length
  throw new DatabaseError(
    'BUS_SCHEMA_UNKNOWN',
    `The schema \`bus\` in ${await whereItIs(executor)} was created by other migrations than those of this version of bossbus: ` +
      `migration ${unknown + 1} of the ${applied.length} that it has differs. Nothing was changed. ` +
      'A version before the first release created it, or a file of drizzle/ was changed: use an empty database',
  )
}
