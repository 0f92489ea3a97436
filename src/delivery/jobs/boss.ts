import type pg from 'pg'
import { PgBoss, type Db } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { Database } from '../../database/database.ts'
import { assertUsableBoss } from './boss-version.ts'
import { queryPrepared } from '../../database/prepared.ts'

/** Jobs that are done stay visible to dashboards this long. The receipts stay for good. */
const deleteAfterSeconds = 3600

/** 63 years. pg-boss would delete jobs that were never run after 14 days. */
const retentionSeconds = 2_000_000_000

/** Queue options every queue of the bus has in common. */
export const queueDefaults = { deleteAfterSeconds, retentionSeconds } as const

/**
 * pg-boss on the bus's own pool. Its timers are off, but for the registry of instances: what they would do the bus
 * asks for when it is due (see maintenance.ts), so that an idle process with many queues does not poll each of them.
 */
function createBoss(
  database: Database,
  instanceName: string,
  logger: BusLogger,
  options: { readonly migrate: boolean; readonly registerInstance: boolean; readonly keepsTrends: boolean },
): PgBoss {
  const boss = new PgBoss({
    db: { executeSql: (text, values) => database.pool.query(text, values) },
    schema: database.bossSchema,
    migrate: options.migrate,
    supervise: false,
    schedule: false,
    registerInstance: options.registerInstance,
    instanceName,
    monitorIntervalSeconds: 1,
    maintenanceIntervalSeconds: 60,
    // Dashboards show throughput and waiting times from it: a row for each count of a queue, kept for seven days.
    persistQueueStats: options.keepsTrends,
    // The options of a queue change only in register(), which reloads them.
    queueCacheIntervalSeconds: 600,
    instanceHeartbeatSeconds: 60,
    useListenNotify: false,
    openTelemetry: { enabled: false },
  })
  // Without a listener for it, an `error` event ends the process.
  boss.on('error', (error) => logger.warn({ reason: reasonOf(error) }, 'pg-boss reported an error'))
  boss.on('warning', (warning) => logger.debug({ reason: warning.message }, 'pg-boss reported a warning'))
  return boss
}

/** Runs pg-boss statements inside an open transaction of the bus. */
export function inTransaction(client: pg.ClientBase): { readonly db: Db } {
  return {
    db: {
      // Without values it may be a script, which cannot be prepared.
      executeSql: async (text, values = []) =>
        values.length === 0 ? client.query(text) : queryPrepared(client, text, values),
    },
  }
}

/** Runs single pg-boss statements inside an open transaction of the bus, prepared. */
export function preparedIn(client: pg.ClientBase): { readonly db: Db } {
  return { db: { executeSql: async (text, values) => queryPrepared(client, text, values) } }
}

/** Runs single pg-boss statements on the bus's pool, prepared. */
export function preparedOn(database: Database): { readonly db: Db } {
  return { db: { executeSql: async (text, values) => database.queryPrepared(text, values) } }
}

/**
 * pg-boss on a schema that is there.
 *
 * @throws {@link DatabaseError} `BUS_SCHEMA_MISSING`, `BUS_BOSS_SCHEMA_TOO_OLD`, `BUS_BOSS_SCHEMA_OUTDATED`, `BUS_BOSS_SCHEMA_TOO_NEW`, `BUS_BOSS_SCHEMA_UNSUPPORTED`
 */
export async function openBoss(
  database: Database,
  instanceName: string,
  logger: BusLogger,
  { registerInstance = false }: { readonly registerInstance?: boolean } = {},
): Promise<PgBoss> {
  const isNewer = await assertUsableBoss(database)
  const keepsTrends = await mayMakePartitions(database)
  // Told not to migrate it takes its own version alone; told to, it leaves a newer schema as it is and works with it.
  const boss = createBoss(database, instanceName, logger, { migrate: isNewer, registerInstance, keepsTrends })
  try {
    await boss.start()
  } catch (error) {
    // What it had begun has timers.
    await boss.stop({ graceful: false }).catch(() => {})
    throw error
  }
  return boss
}

/** Installs or updates pg-boss's own schema, unless it is newer. Its migrations lock and check by themselves. */
export async function migrateBoss(database: Database, logger: BusLogger): Promise<void> {
  const boss = createBoss(database, 'migrate', logger, {
    migrate: true,
    registerInstance: false,
    keepsTrends: false,
  })
  try {
    await boss.start()
  } finally {
    await boss.stop({ graceful: false })
  }
}

/** pg-boss keeps what it has counted in a table with a partition for each day, which only the owner of the table can make. */
async function mayMakePartitions(database: Database): Promise<boolean> {
  const { rows } = await database.query(
    `select from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = 'queue_stats' and c.relkind = 'p'
       and pg_has_role(c.relowner, 'usage') and has_schema_privilege(n.oid, 'create')`,
    [database.bossSchemaName],
  )
  return rows.length > 0
}
