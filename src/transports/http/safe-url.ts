import { lookup } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { ConfigurationError } from '../../foundation/errors.ts'
import { booleanOption, describe, invalidOption } from '../../foundation/options.ts'
import { isForbiddenAddress } from './forbidden-addresses.ts'

/** Which URLs may be called. */
export interface UrlRules {
  /** Hosts whose addresses are not public may be called: for systems of your own, never for URLs that others give. @defaultValue `false` */
  readonly allowPrivate?: boolean | undefined
  /** Plain `http:` may be called. @defaultValue the value of `allowPrivate` */
  readonly allowHttp?: boolean | undefined
  /** The ports that may be called. @defaultValue 443 and 8443, with `allowHttp` also 80 and 8080; with `allowPrivate` any */
  readonly ports?: readonly number[] | undefined
}

const maxUrlLength = 2048

/**
 * Checks a URL before anything is sent. What its name resolves to is checked when it is called: see {@link safeLookup}.
 *
 * @throws a `ConfigurationError` `BUS_URL_NOT_ALLOWED`, which names neither path nor credentials
 */
export function assertSafeUrl(given: unknown, rules: UrlRules = {}): URL {
  const allowPrivate = booleanOption('allowPrivate', rules.allowPrivate, false)
  const allowHttp = booleanOption('allowHttp', rules.allowHttp, allowPrivate)
  const ports = portsOption(rules.ports)
  if (typeof given !== 'string' || given.length > maxUrlLength || !URL.canParse(given))
    throw refused(`Expected a URL of at most ${maxUrlLength} characters, got ${describe(given)}`)
  // Tabs and line ends vanish when a URL is parsed.
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u0020\\]/.test(given))
    throw refused('Expected a URL without spaces, control characters and backslashes')
  const url = new URL(given)
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && allowHttp))
    throw refused(`Expected a URL with \`https:\`, got ${describe(url.protocol)}`)
  if (url.username !== '' || url.password !== '')
    throw refused('Expected a URL without user and password: use a header')
  const port = url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port)
  const allowed = ports ?? (allowPrivate ? undefined : allowHttp ? [443, 8443, 80, 8080] : [443, 8443])
  if (allowed !== undefined && !allowed.includes(port))
    throw refused(`Expected a URL with one of the ports ${allowed.join(', ')}, got ${port}`)
  const host = hostOf(url)
  if (host === '') throw refused('Expected a URL with a host')
  if (!allowPrivate && isPrivateHost(host))
    throw refused(`Expected a URL of a public host, got ${describe(host)}`)
  return url
}

function portsOption(given: unknown): readonly number[] | undefined {
  if (given === undefined) return undefined
  const isPort = (port: unknown): port is number =>
    typeof port === 'number' && Number.isInteger(port) && port >= 1 && port <= 65_535
  if (Array.isArray(given) && given.every(isPort)) return given
  throw invalidOption(`Expected \`ports\` to be a list of ports, got ${describe(given)}`, 'ports')
}

/** The host of a URL, as it is resolved: an IPv6 address without its brackets, a name without the dot at its end. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1').replace(/\.$/, '')
}

/** Names that resolve inside a network alone. */
const privateNames = /(?:^|\.)(?:localhost|local|internal|intranet|lan|home|corp|private|home\.arpa)$/i

function isPrivateHost(host: string): boolean {
  if (isIP(host) !== 0) return isForbiddenAddress(host)
  return privateNames.test(host) || !host.includes('.')
}

/** How names are resolved: replaced in tests. */
export type ResolveName = (
  host: string,
  callback: (error: Error | null, addresses: readonly { address: string; family: number }[]) => void,
) => void

const resolveAll: ResolveName = (host, callback) => lookup(host, { all: true }, callback)

/**
 * The lookup of a connection: it connects to the very addresses that were checked, so a name that changes its answer between the check
 * and the call gains nothing. A name with any address that is not public is refused.
 */
export function safeLookup(allowPrivate: boolean, resolveName: ResolveName = resolveAll): LookupFunction {
  return (host, options, callback) => {
    resolveName(host, (error, addresses) => {
      const [first] = addresses ?? []
      if (error !== null || first === undefined)
        callback(error ?? new Error(`The host ${describe(host)} has no address`), '')
      else if (!allowPrivate && addresses.some(({ address }) => isForbiddenAddress(address)))
        callback(refused(`The host ${describe(host)} has an address that is not public`), '')
      else if (options.all === true) callback(null, [...addresses])
      else callback(null, first.address, first.family)
    })
  }
}

function refused(message: string): ConfigurationError {
  return new ConfigurationError('BUS_URL_NOT_ALLOWED', message, { option: 'url' })
}
