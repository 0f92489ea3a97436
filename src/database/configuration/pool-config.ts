import pg from 'pg'
import { describe, invalidOption } from '../../foundation/options.ts'
import { isDatabaseUrl, parseDatabaseUrl, type Host } from './database-url.ts'
import type { TlsFiles } from './tls-parameters.ts'

/** Where connections go, as far as that is known without network or file access. */
export interface Target {
  /** The configuration for node-postgres. Contains no `connectionString`, so that connecting parses nothing and reads no file. */
  readonly config: pg.PoolConfig
  /** At least one. */
  readonly hosts: readonly Host[]
  readonly files: TlsFiles
}

/** A lost server is noticed within seconds. The number of connections: see connection-shares.ts. */
export const poolDefaults = {
  connectionTimeoutMillis: 10_000,
  application_name: 'bossbus',
} as const

const longestTimerMs = 2_147_483_647

/** The bounds of the numeric options of a pool configuration. */
const numberBounds: Readonly<Record<string, readonly [min: number, max: number]>> = {
  max: [1, 10_000],
  min: [0, 10_000],
  connectionTimeoutMillis: [0, longestTimerMs],
  idleTimeoutMillis: [0, longestTimerMs],
  maxLifetimeSeconds: [0, 2_147_483],
  keepAliveInitialDelayMillis: [0, longestTimerMs],
  statement_timeout: [0, longestTimerMs],
  query_timeout: [0, longestTimerMs],
  lock_timeout: [0, longestTimerMs],
  idle_in_transaction_session_timeout: [0, longestTimerMs],
}

const texts = ['user', 'database', 'host', 'application_name', 'fallback_application_name', 'options']

/**
 * Interprets the option `database`, or the result of its function.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, which never quotes the URL or a password
 */
export function toTarget(option: unknown): Target {
  if (typeof option === 'string' && isDatabaseUrl(option.trim())) return fromUrl(option, {})
  const handle = handleKind(option)
  if (handle !== undefined)
    refuse(
      `a postgres:// URL or a pool configuration, got ${handle}: the bus opens its own connections. Pass the URL that this one was created from`,
    )
  if (option === null || typeof option !== 'object' || Array.isArray(option))
    refuse(
      `a postgres:// URL, a node-postgres pool configuration, or a function that returns one, got ${wrongOption(option)}`,
    )
  if (option instanceof URL) refuse('a string, not a URL object: pass its `href`')
  // An option set to `undefined` has its default.
  const { connectionString, ...given } = Object.fromEntries(
    Object.entries(option).filter(([, value]) => value !== undefined),
  ) as pg.PoolConfig
  checkConfig(given)
  if (connectionString === undefined)
    return checked({
      config: { ...poolDefaults, ...given },
      hosts: [{ host: given.host, port: given.port }],
      files: {},
    })
  if (typeof connectionString !== 'string' || !isDatabaseUrl(connectionString.trim()))
    refuse('a pool configuration whose `connectionString` is a postgres:// URL')
  return fromUrl(connectionString, given)
}

/** Settings in the URL take precedence over those beside it, as in node-postgres. */
function fromUrl(url: string, given: pg.PoolConfig): Target {
  const { config, hosts, files } = parseDatabaseUrl(url)
  return checked({
    config: { ...poolDefaults, ...given, ...config },
    hosts: hosts.map(({ host, port }) => ({ host: host ?? given.host, port: port ?? given.port })),
    files,
  })
}

/** The kind of the value passed instead, if it is an object that already has connections. */
export function handleKind(option: unknown): string | undefined {
  if ((typeof option !== 'object' && typeof option !== 'function') || option === null) return undefined
  if (typeof option === 'function')
    return 'unsafe' in option && 'begin' in option ? 'a postgres.js client' : undefined
  if ('execute' in option && 'select' in option) return 'a Drizzle database'
  if ('connect' in option && 'totalCount' in option) return 'a node-postgres pool'
  if ('connect' in option && 'query' in option) return 'a node-postgres client'
  return 'connect' in option || 'query' in option || 'execute' in option ? 'a client' : undefined
}

/** Never quotes the text itself, which may contain a password. */
function wrongOption(option: unknown): string {
  if (option === undefined) return 'undefined: is the environment variable set?'
  if (typeof option !== 'string') return describe(option)
  if (option.trim() === '') return 'an empty string: is the environment variable set?'
  const [, scheme] = /^\s*([a-z][a-z0-9+.-]{0,30}):/i.exec(option) ?? []
  return scheme === undefined ? 'a string that is not a URL' : `a URL with the scheme \`${scheme}:\``
}

function checkConfig(config: pg.PoolConfig): void {
  const fields = config as Readonly<Record<string, unknown>>
  for (const name of texts) {
    const value = fields[name] ?? undefined
    if (value !== undefined && (typeof value !== 'string' || value.includes('\u0000')))
      refuse(`a pool configuration whose \`${name}\` is a string, got ${describe(value)}`)
  }
  for (const [name, [min, max]] of Object.entries(numberBounds)) {
    const value = fields[name] ?? false
    // No limit, as in node-postgres.
    if (value === false && name !== 'max') continue
    if (value === false && fields[name] === undefined) continue
    if (!Number.isInteger(value) || Number(value) < min || Number(value) > max)
      refuse(
        `a pool configuration whose \`${name}\` is an integer from ${min} to ${max}, got ${describe(value)}`,
      )
  }
  const { port } = fields
  if (port !== undefined && port !== null && !isPort(port))
    refuse(`a pool configuration whose \`port\` is a number from 1 to 65535, got ${describe(port)}`)
  const password = fields['password'] ?? undefined
  if (password !== undefined && typeof password !== 'string' && typeof password !== 'function')
    refuse(
      `a pool configuration whose \`password\` is a string or a function, got a value of type ${typeof password}`,
    )
  const ssl = fields['ssl'] ?? undefined
  if (
    ssl !== undefined &&
    typeof ssl !== 'boolean' &&
    typeof ssl !== 'object' &&
    ssl !== 'true' &&
    ssl !== 'no-verify'
  )
    refuse(`a pool configuration whose \`ssl\` is true, false or TLS options, got ${describe(ssl)}`)
}

function isPort(port: unknown): boolean {
  const number = typeof port === 'string' && /^\d{1,5}$/.test(port) ? Number(port) : port
  return typeof number === 'number' && Number.isInteger(number) && number >= 1 && number <= 65_535
}

/** Lets node-postgres validate it, with the environment applied. That opens no connection. */
function checked(target: Target): Target {
  const { config, hosts } = target
  // A stream or a connection of the caller must not be created just to test the configuration.
  if ('stream' in config || 'connection' in config) return target
  for (const host of hosts) {
    let port: unknown
    try {
      port = new pg.Client({ ...config, ...host }).port
    } catch (error) {
      refuse(
        `a configuration that node-postgres accepts, which reports: ${error instanceof Error ? error.message : 'no reason'}`,
      )
    }
    if (!isPort(port)) refuse('a port from 1 to 65535; it is neither in `database` nor in PGPORT')
  }
  return target
}

function refuse(expected: string): never {
  throw invalidOption(`Expected \`database\` to be ${expected}`, 'database')
}
