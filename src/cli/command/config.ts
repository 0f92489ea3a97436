import { existsSync, readFileSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import type { BossbusConfig } from '../../bossbus-config.ts'
import type { Bus } from '../../bus-interface.ts'
import type { BusOptions } from '../../bus-options.ts'
import { optionsOf } from '../../bus-settings.ts'
import type { DatabaseOption } from '../../database/database.ts'
import type { EventCatalogue } from '../../events/catalogue.ts'
import { refuseUnknownKeys } from '../../foundation/options.ts'
import { loadModule } from './load-module.ts'
import { program } from '../output/program.ts'
import { UsageError } from './usage-error.ts'

/** The configuration, with flags and environment applied. */
export interface Config {
  /** The file it was read from; undefined if there is none. */
  readonly file: string | undefined
  /** The bus that the file exports. Not started, and with the logger and the subscriptions of the service. */
  readonly exportedBus: Bus | undefined
  /** @throws an {@link UsageError} if none is configured */
  readonly database: () => DatabaseOption
  /** Rejects with an {@link UsageError} if none is configured, and with the error of events that are refused. */
  readonly events: () => Promise<EventCatalogue>
  /** @throws an {@link UsageError} if none is configured */
  readonly source: () => string
  /** Undefined if not configured. */
  readonly bossSchema: string | undefined
  /** What `bossbus dev` runs, from the folder of `file`. Undefined if not configured. */
  readonly dev: string | undefined
  /**
   * The options of a bus for reads and changes. Without configured events it knows no type, so payloads are hidden.
   * @throws an {@link UsageError} without a database
   */
  readonly busOptions: () => BusOptions<EventCatalogue>
}

const settingNames = [
  'database',
  'events',
  'source',
  'bossSchema',
  'dev',
  'retention',
] as const satisfies readonly (keyof BossbusConfig)[]

export const configNames = [
  'bossbus.config.ts',
  'bossbus.config.mts',
  'bossbus.config.js',
  'bossbus.config.mjs',
]

export interface ConfigSources {
  readonly configFlag: string | undefined
  readonly databaseFlag: string | undefined
  readonly databaseFileFlag: string | undefined
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  /** Finds the database of a `bossbus dev` that runs in the folder, where nothing else names one. Undefined: there may be none. */
  readonly runningDev?:
    | {
        readonly find: () => Promise<string | undefined>
        /** Called when it is used. */
        readonly tell: (url: string) => void
      }
    | undefined
}

/** The names of services that have none: what they publish and change is recorded under it. */
const unnamedSource = 'bossbus-cli'

/**
 * Flags take precedence over the environment, and the environment over the configuration file; but the database of an exported bus over
 * `DATABASE_URL`, which may well be that of the application's pooler.
 */
export async function loadConfig(sources: ConfigSources): Promise<Config> {
  const { configFlag, env, cwd } = sources
  const asked = configFlag ?? given(env['BOSSBUS_CONFIG'])
  const file = asked === undefined ? findFile(cwd) : resolve(cwd, asked)
  if (asked !== undefined && file !== undefined && !existsSync(file))
    throw new UsageError(`There is no configuration file ${file}`)
  const flag = databaseFlagOf(sources)
  const ofEnvironment = (name: string): string | undefined => given(env[name])
  const isNamed =
    (flag ?? ofEnvironment('BOSSBUS_DATABASE_URL') ?? ofEnvironment('DATABASE_URL')) !== undefined
  const running = isNamed ? undefined : await sources.runningDev?.find()
  if (running !== undefined) shareWithConfiguration(running)
  const { settings, exportedBus } =
    file === undefined ? { settings: {}, exportedBus: undefined } : await read(file)
  // The configuration may have loaded them from a file.
  const ofBossbus = ofEnvironment('BOSSBUS_DATABASE_URL')
  const shared = ofEnvironment('DATABASE_URL')
  const ofService = shared === running ? undefined : shared
  const ofBus = exportedBus === undefined ? undefined : optionsOf(exportedBus)
  const { events = ofBus?.events, source = ofBus?.source, bossSchema = ofBus?.bossSchema } = settings
  const database = flag ?? ofBossbus ?? ofBus?.database ?? ofService ?? settings.database ?? running
  const missing = (name: string): UsageError =>
    new UsageError(
      file === undefined
        ? `There is no ${configNames[0]} in ${cwd} (nor ${configNames.slice(1).join(', ')}): write one that exports { database, events, source } or a bus by default, or name it with --config`
        : `${file} exports no \`${name}\``,
    )
  const databaseOf = (): DatabaseOption => {
    // An object or a function may have it from the environment.
    if (running !== undefined && (typeof database !== 'string' || database === running))
      sources.runningDev?.tell(running)
    if (database !== undefined) return database
    throw new UsageError(
      `No database is given: use DATABASE_URL, BOSSBUS_DATABASE_URL, --database, or \`database\` in the configuration file. Or start one, and your service: ${program()} dev`,
    )
  }
  return {
    ...{ file, exportedBus, bossSchema, dev: settings.dev, database: databaseOf },
    events: async () => {
      if (events === undefined) throw missing('events')
      const { defineEvents } = await import('../../events/catalogue.ts')
      return defineEvents(events)
    },
    source: () => {
      if (typeof source !== 'string' || source === '') throw missing('source')
      return source
    },
    busOptions: () => ({
      ...ofBus,
      database: databaseOf(),
      events: events ?? {},
      source: source ?? unnamedSource,
      bossSchema,
      retention: settings.retention ?? ofBus?.retention,
    }),
  }
}

/** The code of a service reads DATABASE_URL, and that of a bus is refused without it: dev gives it to the service in the same way. */
function shareWithConfiguration(url: string): void {
  // oxlint-disable-next-line no-process-env -- what the configuration reads.
  process.env['DATABASE_URL'] = url
}

function databaseFlagOf({ databaseFlag, databaseFileFlag, cwd }: ConfigSources): string | undefined {
  if (databaseFileFlag === undefined) return databaseFlag
  if (databaseFlag !== undefined) throw new UsageError('Give either --database or --database-file')
  const file = resolve(cwd, databaseFileFlag)
  let url: string
  try {
    url = readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw new UsageError(`${file} could not be read: ${(error as Error).message}`, { cause: error })
  }
  // Not the database of the environment in its place.
  if (url === '') throw new UsageError(`${file} is empty: it must hold the URL of the database`)
  return url
}

function given(value: string | undefined): string | undefined {
  return value === undefined || value === '' ? undefined : value
}

/** The configuration in a folder. */
export function findFile(cwd: string): string | undefined {
  return configNames.map((name) => resolve(cwd, name)).find((file) => existsSync(file))
}

async function read(
  file: string,
): Promise<{ readonly settings: BossbusConfig; readonly exportedBus: Bus | undefined }> {
  const exports = await loadModule(file)
  const { default: main, bus } = exports
  const exportedBus = [main, bus].find(isBus)
  const settings = isBus(main) ? undefined : main
  if (settings === undefined && exportedBus !== undefined) return { settings: {}, exportedBus }
  if (settings === null || typeof settings !== 'object')
    throw new UsageError(
      `Expected ${file} to export an object like { database, events, source } by default, or a bus`,
    )
  refuseUnknownKeys(settings, settingNames, basename(file))
  return { settings, exportedBus }
}

/** Of any copy of the package. */
function isBus(value: unknown): value is Bus {
  const { subscribe, migrate, health } = (value ?? {}) as Partial<Record<keyof Bus, unknown>>
  return [subscribe, migrate, health].every((each) => typeof each === 'function')
}
