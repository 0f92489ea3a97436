import type pg from 'pg'
import { PgBoss, type Db } from 'pg-boss'
import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { Database } from '../../database/database.ts'
import { assertUsableBoss } from './boss-version.ts'
import { queryPrepared } from '../../database/prepared.ts'

/** How long settled jobs stay visible to dashboards. Receipts stay forever. */
const deleteAfterSeconds = 3600

/** 63 years. By default pg-boss deletes jobs that have not run after 14 days. */
const retentionSeconds = 2_000_000_000

/** Options that all queues of the bus share. */
export const queueDefaults = { deleteAfterSeconds, retentionSeconds } as const

/** Runs pg-boss statements on the bus's pool. */
function onPool({ pool }: Database): { readonly db: Db } {
  return { db: { executeSql: (text, values) => pool.query(text, values) } }
}

/**
 * pg-boss on the bus's own connections. Its timers are off, except for the registry of instances: maintenance calls what they
 * would do when it is due (see maintenance.ts), so that an idle process with many queues does not poll each of them.
 */
function createBoss(
  database: Database,
  instanceName: string,
  logger: BusLogger,
  options: {
    readonly migrate: boolean
    readonly registerInstance: boolean
    readonly keepsTrends: boolean
    readonly db?: Db
  },
): PgBoss {
  const boss = new PgBoss({
    db: options.db ?? onPool(database).db,
    schema: database.bossSchema,
    migrate: options.migrate,
    supervise: false,
    schedule: false,
    registerInstance: options.registerInstance,
    instanceName,
    monitorIntervalSeconds: 1,
    maintenanceIntervalSeconds: 60,
    // Dashboards use it for throughput and waiting times: a row for each count of a queue, kept for seven days.
    persistQueueStats: options.keepsTrends,
    // The options of a queue only change in registerSubscriptions(), which reloads them.
    queueCacheIntervalSeconds: 600,
    instanceHeartbeatSeconds: 60,
    useListenNotify: false,
    openTelemetry: { enabled: false },
  })
  // Without a listener an `error` event would end the process.
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
 * Opens pg-boss on an existing schema.
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
  // Without `migrate` it accepts only its own version; with it, it accepts a newer schema unchanged.
  const boss = createBoss(database, instanceName, logger, { migrate: isNewer, registerInstance, keepsTrends })
  try {
    await boss.start()
  } catch (error) {
    // It has started timers.
    await boss.stop({ graceful: false }).catch(() => {})
    throw error
  }
  return boss
}

/**
 * pg-boss that is not started: for a few calls of a process that need not deliver. It has no timers, is not stopped, and reads only the
 * queues that it is called with. The caller verifies the schema, see {@link assertUsableBoss}.
 *
 * @param on - where it reads queues and runs its calls: a transaction that holds the only connection must be given here
 */
export function unstartedBoss(database: Database, logger: BusLogger, on = onPool(database)): PgBoss {
  const options = { migrate: false, registerInstance: false, keepsTrends: false, ...on }
  return createBoss(database, 'unstarted', logger, options)
}

/** Installs or upgrades pg-boss's own schema, unless it is newer. Its migrations take their own locks. */
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

/** pg-boss stores statistics in a table with a partition for each day, which only the owner of the table can create. */
async function mayMakePartitions(database: Database): Promise<boolean> {
  const { rows } = await database.query(
    `select from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relname = 'queue_stats' and c.relkind = 'p'
       and pg_has_role(c.relowner, 'usage') and has_schema_privilege(n.oid, 'create')`,
    [database.bossSchemaName],
  )
  return rows.length > 0
}
