import { fileURLToPath } from 'node:url'
import type pg from 'pg'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { DatabaseError } from '../events/errors.ts'
import { withLock } from './advisory-lock.ts'
import type { BusClient } from './bus-client.ts'
import type { Database, Executor } from './database.ts'
import { toBusError } from './database-errors.ts'
import { locks } from './doorbell.ts'
import { checkRowSecurity, checkServer } from './server-check.ts'
import { beginOn, beginWriting } from './session-settings.ts'

/** The migrations shipped with the package: `drizzle/` beside `src/` and `dist/`. */
const migrationsFolder = fileURLToPath(new URL('../../drizzle', import.meta.url))

const table = { migrationsSchema: 'bus', migrationsTable: 'migrations' } as const

/**
 * Brings the schema `bus` up to this version, then runs `alongside`, all under one advisory lock: any number of
 * processes may start at once, and each finds everything done when its turn comes.
 *
 * @throws {@link DatabaseError} `BUS_SCHEMA_TOO_NEW` when a newer version of the bus has migrated this database
 */
export async function migrateSchema(database: Database, alongside: () => Promise<void>): Promise<void> {
  await checkServer(database)
  await checkRowSecurity(database)
  await withLock(database, locks.migrate, async () => migrateAlone(database, alongside)).catch(
    (error: unknown) => {
      throw toBusError(error)
    },
  )
}

async function migrateAlone(database: Database, alongside: () => Promise<void>): Promise<void> {
  const session = await database.openSession()
  try {
    const { applied, shipped } = await compareVersions(session)
    if (applied > shipped) throw tooNew(applied, shipped)
    if (applied < shipped) {
      await applyMigrations(session)
      await database.reach?.('migrate.applied')
    }
    await session.query('select bus.create_partitions()')
    await database.reach?.('migrate.partitions-created')
    await alongside()
  } finally {
    await session.end().catch(() => {})
  }
}

/** Drizzle's migrator is loaded where there is something to migrate: it takes 100 MB. */
async function applyMigrations(session: BusClient): Promise<void> {
  const [{ drizzle }, { migrate }] = await Promise.all([
    import('drizzle-orm/node-postgres'),
    import('drizzle-orm/node-postgres/migrator'),
  ])
  await migrate(drizzle(withClosedPath(session)), { migrationsFolder, ...table })
}

/**
 * Has Drizzle's transaction find nothing but what PostgreSQL brings: functions keep what they found when they were made, and
 * others may have put something that fits better into the schema `public`. For the transaction alone, so that no pooler
 * hands the setting to anybody else.
 */
function withClosedPath(session: BusClient): pg.Client {
  // Of a client, Drizzle's session uses `query` alone.
  const client = {
    async query(config: string | pg.QueryConfig, values?: unknown[]) {
      if ((typeof config === 'string' ? config : config.text).trim() !== 'begin')
        return session.query(config as pg.QueryConfig, values)
      return session.query(`${beginOn(session, beginWriting)}; set local search_path = pg_catalog, pg_temp`)
    },
  }
  return client as unknown as pg.Client
}

/**
 * Makes sure that the database has exactly the schema this version of the bus was written for.
 *
 * @throws {@link DatabaseError} `BUS_DATABASE_UNSUPPORTED`, `BUS_SETTING_UNSUPPORTED`, `BUS_PERMISSION_DENIED`, `BUS_SCHEMA_MISSING`, `BUS_SCHEMA_OUTDATED`, `BUS_SCHEMA_TOO_NEW`
 */
export async function checkSchema(executor: Executor): Promise<void> {
  await checkServer(executor)
  await checkRowSecurity(executor)
  const { applied, shipped } = await compareVersions(executor)
  if (applied === 0)
    throw new DatabaseError(
      'BUS_SCHEMA_MISSING',
      'The schema `bus` is missing: run bus.migrate() before bus.start()',
    )
  if (applied < shipped) {
    throw new DatabaseError(
      'BUS_SCHEMA_OUTDATED',
      `The schema \`bus\` is at migration ${applied} of ${shipped}: run bus.migrate() before bus.start()`,
    )
  }
  if (applied > shipped) throw tooNew(applied, shipped)
}

function tooNew(applied: number, shipped: number): DatabaseError {
  return new DatabaseError(
    'BUS_SCHEMA_TOO_NEW',
    `The schema \`bus\` is at migration ${applied}, but this version of bossbus knows ${shipped}: update bossbus in this service`,
  )
}

async function compareVersions(
  executor: Pick<Executor, 'query'>,
): Promise<{ applied: number; shipped: number }> {
  const shipped = readMigrationFiles({ migrationsFolder }).length
  const { rows: found } = await executor.query<{ there: boolean }>(
    "select to_regclass('bus.migrations') is not null as there",
  )
  if (found[0]?.there !== true) return { applied: 0, shipped }
  const { rows } = await executor.query<{ count: string }>('select count(*) from bus.migrations')
  return { applied: Number(rows[0]?.count ?? 0), shipped }
}
