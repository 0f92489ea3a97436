import { existsSync } from 'node:fs'
import { extname, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { defineEvents, type EventCatalogue } from '../../events/catalogue.ts'
import { BusError } from '../../foundation/errors.ts'
import type { DatabaseOption } from '../../database/database.ts'
import { UsageError } from './usage-error.ts'
import type { BossbusConfig } from '../../bossbus-config.ts'

/** The configuration, with flags and environment applied. */
export interface Config {
  /** The file it was read from; undefined if there is none. */
  readonly file: string | undefined
  /** @throws an {@link UsageError} if none is configured */
  readonly database: () => DatabaseOption
  /** @throws an {@link UsageError} if none is configured */
  readonly events: () => EventCatalogue
  /** @throws an {@link UsageError} if none is configured */
  readonly source: () => string
  /** Undefined if not configured. */
  readonly bossSchema: string | undefined
}

const fileNames = ['bossbus.config.ts', 'bossbus.config.mts', 'bossbus.config.js', 'bossbus.config.mjs']

export interface ConfigSources {
  readonly configFlag: string | undefined
  readonly databaseFlag: string | undefined
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
}

/** Flags take precedence over the environment, and the environment over the configuration file. */
export async function loadConfig({ configFlag, databaseFlag, env, cwd }: ConfigSources): Promise<Config> {
  const asked = configFlag ?? given(env['BOSSBUS_CONFIG'])
  const file = asked === undefined ? findFile(cwd) : resolve(cwd, asked)
  if (asked !== undefined && file !== undefined && !existsSync(file))
    throw new UsageError(`There is no configuration file ${file}`)
  const config = file === undefined ? {} : await importConfig(file)
  const database =
    databaseFlag ?? given(env['BOSSBUS_DATABASE_URL']) ?? given(env['DATABASE_URL']) ?? config.database
  const missing = (name: string): UsageError =>
    new UsageError(
      file === undefined
        ? `There is no ${fileNames[0]} in ${cwd} (nor ${fileNames.slice(1).join(', ')}): write one that exports { database, events, source } by default, or name it with --config`
        : `${file} exports no \`${name}\``,
    )
  return {
    file,
    bossSchema: config.bossSchema,
    database: () => {
      if (database !== undefined) return database
      throw new UsageError(
        'No database is given: use --database, BOSSBUS_DATABASE_URL, DATABASE_URL, or `database` in the configuration file',
      )
    },
    events: () => {
      const { events } = config
      if (events === undefined) throw missing('events')
      return defineEvents(events)
    },
    source: () => {
      const { source } = config
      if (typeof source !== 'string' || source === '') throw missing('source')
      return source
    },
  }
}

function given(value: string | undefined): string | undefined {
  return value === undefined || value === '' ? undefined : value
}

function findFile(cwd: string): string | undefined {
  return fileNames.map((name) => resolve(cwd, name)).find((file) => existsSync(file))
}

async function importConfig(file: string): Promise<BossbusConfig> {
  let exported: unknown
  try {
    const loaded = (await import(pathToFileURL(file).href)) as { default?: unknown }
    exported = loaded.default
  } catch (error) {
    if (error instanceof BusError) throw error
    throw new UsageError(`${file} could not be loaded: ${explain(error, file)}`, { cause: error })
  }
  if (exported === null || typeof exported !== 'object')
    throw new UsageError(`Expected ${file} to export an object like { database, events, source } by default`)
  return exported
}

function explain(error: unknown, file: string): string {
  const { code, message } = (error ?? {}) as { code?: string; message?: string }
  const isTypeScript = extname(file).endsWith('ts')
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION' && isTypeScript)
    return `this Node (${process.version}) does not run TypeScript. Use Node 22.18 or newer, or write the configuration in JavaScript`
  if (code === 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX')
    return `Node runs TypeScript by leaving out the types, and this needs more (an enum, a namespace, a decorator): ${message ?? ''}`
  return message ?? String(error)
}
