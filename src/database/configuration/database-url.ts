import type pg from 'pg'
import { refuseUnknownKeys, invalidOption } from '../../foundation/options.ts'
import { tlsOf, tlsParameters, type TlsFiles } from './tls-parameters.ts'

/** The address of a server. Undefined parts come from node-postgres's environment variables or defaults. */
export interface Host {
  readonly host: string | undefined
  readonly port: number | undefined
}

/** The contents of a database URL. */
export interface DatabaseUrl {
  /** Everything except the address and the contents of files. Contains only what the URL specifies. */
  readonly config: pg.PoolConfig
  /** At least one. */
  readonly hosts: readonly Host[]
  readonly files: TlsFiles
}

/** Parameters that libpq supports and the bus does not, and the alternative. */
const refusedParameters: Readonly<Record<string, string>> = {
  service:
    'service files (PGSERVICEFILE, ~/.pg_service.conf) are not read: put the settings of the service into the URL',
  servicefile: 'service files are not read: put the settings of the service into the URL',
  passfile: 'name the password file in the environment variable PGPASSFILE',
  hostaddr: 'give the address as the host',
}

/** Parameters that node-postgres takes as text. */
const textParameters = [
  'user',
  'password',
  'application_name',
  'fallback_application_name',
  'options',
] as const

/** Parameters in milliseconds. */
const timeoutParameters = [
  'statement_timeout',
  'lock_timeout',
  'idle_in_transaction_session_timeout',
  'query_timeout',
] as const

const otherParameters = [
  'host',
  'port',
  'dbname',
  'client_encoding',
  'connect_timeout',
  'target_session_attrs',
  'load_balance_hosts',
  'gssencmode',
  'channel_binding',
]

const knownParameters: readonly string[] = [
  ...textParameters,
  ...timeoutParameters,
  ...otherParameters,
  ...tlsParameters,
]

export const isDatabaseUrl = (text: string): boolean => /^postgres(?:ql)?:\/\//i.test(text)

/**
 * Parses a `postgres://` URL like node-postgres, but more strictly: a URL that node-postgres would interpret by
 * guessing, ignore in part, or fail on at the first connection is refused. No message quotes the URL, because it
 * contains the password.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function parseDatabaseUrl(url: string): DatabaseUrl {
  // A secret that is read from a file ends with a line break.
  const text = url.trim()
  if (/\p{Cc}/u.test(text)) refuseUrl('it contains a control character, such as a line break')
  if (text.includes('#') || /%(?![0-9a-f]{2})/i.test(text)) refuseUrl(encodingHint)
  const [, authority = '', path = '', query = ''] =
    /^[^:]*:\/\/([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(text) ?? []
  // Only if the part before it ended too early, because of a raw `/` or `?` in the password.
  if (path.includes('@')) refuseUrl(encodingHint)
  const parameters = parseQuery(query)
  const at = authority.lastIndexOf('@')
  const [user, password] = splitAt(authority.slice(0, Math.max(at, 0)), ':')
  const config: pg.PoolConfig = {
    ...texts({ user, password, database: path }),
    ...configOf(parameters),
  }
  const { ssl, files } = tlsOf(parameters, refuseUrl)
  if (ssl !== undefined) config.ssl = ssl
  return { config, hosts: hostsOf(authority.slice(at + 1), parameters), files }
}

function parseQuery(query: string): ReadonlyMap<string, string> {
  const parameters = new Map(new URLSearchParams(query))
  const names = [...parameters.keys()]
  // Then it is not a query but the rest of the password after a raw `?`; its names are not quoted.
  if (
    query.includes('@') &&
    names.some((name) => !(name in refusedParameters) && !knownParameters.includes(name))
  )
    refuseUrl(encodingHint)
  for (const name of names) {
    const reason = refusedParameters[name]
    if (reason !== undefined) refuseUrl(`without \`${name}\`: ${reason}`)
  }
  refuseUnknownKeys(Object.fromEntries(parameters), knownParameters, 'the URL of `database`')
  for (const value of parameters.values())
    if (value.includes('\u0000')) refuseUrl('a parameter contains a zero byte')
  return parameters
}

function configOf(parameters: ReadonlyMap<string, string>): pg.PoolConfig {
  const config: pg.PoolConfig = {}
  for (const name of textParameters) {
    const value = parameters.get(name)
    if (value !== undefined && value !== '') config[name] = value
  }
  for (const name of timeoutParameters) {
    const value = parameters.get(name)
    if (value !== undefined) config[name] = wholeNumber(name, value, 2_147_483_647)
  }
  const database = parameters.get('dbname')
  if (database !== undefined && database !== '') config.database = database
  const seconds = wholeNumber('connect_timeout', parameters.get('connect_timeout') ?? '0', 2_000_000)
  if (seconds > 0) config.connectionTimeoutMillis = seconds * 1000
  oneOf(parameters, 'client_encoding', ['utf8', 'UTF8', 'utf-8', 'UTF-8', 'auto'])
  oneOf(parameters, 'load_balance_hosts', ['disable'])
  oneOf(parameters, 'gssencmode', ['disable', 'prefer'])
  // The bus writes, so with any of these values it takes the first host that accepts writes.
  oneOf(parameters, 'target_session_attrs', ['any', 'read-write', 'primary'])
  oneOf(parameters, 'uselibpqcompat', ['true', 'false'])
  const negotiation = oneOf(parameters, 'sslnegotiation', ['postgres', 'direct'])
  if (negotiation !== undefined) config.sslnegotiation = negotiation
  const binding = oneOf(parameters, 'channel_binding', ['disable', 'prefer', 'require'])
  if (binding !== undefined && binding !== 'disable') config.enableChannelBinding = true
  return config
}

function hostsOf(authority: string, parameters: ReadonlyMap<string, string>): readonly Host[] {
  const named = parameters.get('host')
  const port = parameters.get('port')
  if (named === undefined) {
    return authority.split(',').map((part) => {
      // An IPv6 address is in brackets, so that its colons do not start a port.
      const [, inBrackets, name = '', , ownPort] =
        /^(?:\[([^\]]*)\]|([^:]*))(:([^:]*))?$/.exec(part) ?? refuseUrl(hostHint)
      const host = decode(inBrackets ?? name)
      return { host: host === '' ? undefined : host, port: portOf(ownPort) ?? portOf(port) }
    })
  }
  const names = named.split(',')
  const ports = (port ?? '').split(',')
  if (ports.length !== 1 && ports.length !== names.length)
    refuseUrl('the number of `port`s differs from the number of `host`s')
  return names.map((host, index) => ({
    host: host === '' ? undefined : host.replace(/^\[(.+)\]$/, '$1'),
    port: portOf(ports.length === 1 ? ports[0] : ports[index]),
  }))
}

function portOf(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0
  // Not quoted: it may be part of an unencoded password.
  if (port < 1 || port > 65_535) refuseUrl(`a port is not a number from 1 to 65535, or ${encodingHint}`)
  return port
}

/** The decoded texts of the URL, without empty ones. */
function texts(given: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(given).flatMap(([name, text]) =>
      text === undefined || text === '' ? [] : [[name, decode(text)]],
    ),
  )
}

function decode(text: string): string {
  let decoded: string
  try {
    decoded = decodeURIComponent(text)
  } catch {
    return refuseUrl('it contains percent-encoded bytes that are not UTF-8')
  }
  return decoded.includes('\u0000') ? refuseUrl('it contains a zero byte') : decoded
}

function splitAt(text: string, mark: string): [string, string | undefined] {
  const at = text.indexOf(mark)
  return at === -1 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

function wholeNumber(name: string, text: string, max: number): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
  return value <= max ? value : refuseUrl(`\`${name}\` is not an integer from 0 to ${max}`)
}

function oneOf<const T extends string>(
  parameters: ReadonlyMap<string, string>,
  name: string,
  values: readonly T[],
): T | undefined {
  const value = parameters.get(name)
  if (value === undefined) return undefined
  return (
    values.find((known) => known === value) ?? refuseUrl(`\`${name}\` is not one of ${values.join(', ')}`)
  )
}

const encodingHint =
  'a character of the user or the password is not percent-encoded: write `#` as %23, `/` as %2F, `?` as %3F, `@` as %40, `%` as %25'

const hostHint = `a host contains a colon: write an IPv6 address in brackets, as in [::1]:5432; or ${encodingHint}`

function refuseUrl(reason: string): never {
  throw invalidOption(`The URL of \`database\` cannot be used: ${reason}`)
}
