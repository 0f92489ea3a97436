import type { Bus } from '../../bus-interface.ts'
import { optionsOf } from '../../bus-settings.ts'
import type { Database } from '../../database/database.ts'
import { silentLogger, stderrLogger } from '../../foundation/logger.ts'
import type { Config } from './config.ts'

/** The connections of a command, opened on first use. */
export interface Connections {
  readonly bus: (options?: { readonly checksSchema?: boolean }) => Promise<Bus>
  readonly database: () => Promise<Database>
  /** Closes all. Never rejects. */
  readonly close: () => Promise<void>
}

/** Loads the bus on first use: commands that need no database do not wait for it. */
export function createConnections(config: () => Promise<Config>, isDebugging: boolean): Connections {
  const logger = isDebugging ? stderrLogger : silentLogger
  let bus: Promise<Bus> | undefined
  let database: Promise<Database> | undefined
  let checked: Promise<void> | undefined

  async function openBus(): Promise<Bus> {
    const { exportedBus, busOptions } = await config()
    // Of a copy of the package that does not tell its options.
    if (exportedBus !== undefined && optionsOf(exportedBus) === undefined) return exportedBus
    const { createBus } = await import('../../bus.ts')
    return createBus({ ...busOptions(), logger })
  }

  async function openDatabase(): Promise<Database> {
    const [given, { createDatabase }, { resolveBossSchema }] = await Promise.all([
      config(),
      import('../../database/database.ts'),
      import('../../database/boss-schema.ts'),
    ])
    return createDatabase(given.database(), logger, resolveBossSchema(given.bossSchema))
  }

  const connections: Connections = {
    async bus({ checksSchema = true } = {}) {
      bus ??= openBus()
      if (checksSchema) {
        checked ??= check().catch((error: unknown) => {
          // A command that goes on may ask again.
          checked = undefined
          throw error
        })
        await checked
      }
      return bus
    },
    async database() {
      database ??= openDatabase()
      return database
    },
    async close() {
      await Promise.allSettled([
        bus?.then(async (open) => open.stop({ graceMs: 0 })),
        database?.then(async (open) => open.close()),
      ])
    },
  }

  async function check(): Promise<void> {
    const { checkSchema } = await import('../../migrations/migrate.ts')
    await checkSchema(await connections.database())
  }

  return connections
}
