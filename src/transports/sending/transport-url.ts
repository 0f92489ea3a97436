import { ConfigurationError, type BusErrorCode } from '../../foundation/errors.ts'
import { describe, nearest } from '../../foundation/options.ts'
import { printable } from '../../foundation/text.ts'

/** A URL that says where events go, or come from. Remembers which parameters were read: others are refused. */
export class TransportUrl {
  /** Without the colon, in lower case. */
  readonly scheme: string
  /** With the first host, if there are several. */
  readonly url: URL
  readonly #otherHosts: readonly URL[]
  readonly #read = new Set<string>()

  /** @throws a `ConfigurationError` `BUS_INVALID_TRANSPORT_URL` */
  constructor(text: unknown) {
    if (typeof text !== 'string') throw invalidUrl(`Expected the URL of a transport, got ${describe(text)}`)
    const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(text)?.[1]
    const [first, ...others] = urlsOfHosts(text)
    if (scheme === undefined || first === undefined)
      throw invalidUrl(
        'Expected the URL of a transport, such as `kafka://broker:9092/orders`, got a text that is no URL',
      )
    this.scheme = scheme.toLowerCase()
    this.url = first
    this.#otherHosts = others
  }

  /** Everything between the scheme and the parameters, decoded: `orders` of `kafka://broker/orders`, or an ARN. */
  get path(): string {
    return decoded(this, this.url.pathname).replace(/^\//, '')
  }

  get username(): string {
    return decoded(this, this.url.username)
  }

  get password(): string {
    return decoded(this, this.url.password)
  }

  /** `host:port`, with a port if there is none. @throws if there is no host */
  host(defaultPort: number): string {
    if (this.#otherHosts.length > 0) throw this.refuse('it has several hosts, and one is expected')
    return this.#hostOf(this.url, defaultPort)
  }

  /** As {@link host}, for systems of several servers: `kafka://one:9092,two:9092/orders`. */
  hosts(defaultPort: number): [string, ...string[]] {
    return [
      this.#hostOf(this.url, defaultPort),
      ...this.#otherHosts.map((url) => this.#hostOf(url, defaultPort)),
    ]
  }

  /** A parameter, if it is there. */
  text(name: string): string | undefined {
    this.#read.add(name)
    const values = this.url.searchParams.getAll(name)
    if (values.length > 1) throw this.refuse(`the parameter \`${name}\` is there ${values.length} times`)
    if (values[0] === '') throw this.refuse(`the parameter \`${name}\` is empty`)
    return values[0]
  }

  /** A parameter that must be there. */
  required(name: string): string {
    return this.text(name) ?? this.#missing(name)
  }

  /** A parameter that is one of some words. */
  choice<W extends string>(name: string, words: readonly W[]): W | undefined {
    const given = this.text(name)
    const word = words.find((each) => each === given)
    if (given === undefined || word !== undefined) return word
    throw this.refuse(`\`${name}\` is ${words.join(' or ')}, got ${describe(given)}`)
  }

  /** A parameter that is a whole number. */
  integer(name: string, min: number, max: number): number | undefined {
    const given = this.text(name)
    if (given === undefined) return undefined
    const number = /^\d{1,15}$/.test(given) ? Number(given) : Number.NaN
    if (number >= min && number <= max) return number
    throw this.refuse(`\`${name}\` is a whole number from ${min} to ${max}, got ${describe(given)}`)
  }

  /** A parameter that is `true` or `false`. */
  flag(name: string, fallback: boolean): boolean {
    const given = this.choice(name, ['true', 'false'])
    return given === undefined ? fallback : given === 'true'
  }

  /** For URLs whose parameters belong to somebody else. */
  allowAll(): void {
    for (const name of this.url.searchParams.keys()) this.#read.add(name)
  }

  /** Refuses parameters that nobody has read. */
  refuseUnknown(): void {
    const unknown = [...this.url.searchParams.keys()].find((name) => !this.#read.has(name))
    if (unknown === undefined) return
    const near = nearest(unknown, [...this.#read])
    const known = [...this.#read].map((name) => `\`${name}\``).join(', ') || 'none'
    const hint = near === undefined ? `Known are: ${known}` : `Did you mean \`${near}\`?`
    throw this.refuse(`the parameter \`${printable(unknown, 60)}\` is not known. ${hint}`)
  }

  /** The error for this URL. It names scheme and host alone: the rest may hold a secret. */
  refuse(reason: string): ConfigurationError {
    return invalidUrl(
      `Cannot use the URL ${printable(this.scheme, 20)}://${printable(this.url.host, 100)}…: ${reason}`,
    )
  }

  #hostOf(url: URL, defaultPort: number): string {
    if (url.hostname === '') throw this.refuse('the host is missing')
    return url.port === '' ? `${url.hostname}:${defaultPort}` : url.host
  }

  #missing(name: string): never {
    throw this.refuse(`the parameter \`${name}\` is missing`)
  }
}

function invalidUrl(message: string): ConfigurationError {
  return new ConfigurationError('BUS_INVALID_TRANSPORT_URL' satisfies BusErrorCode, message)
}

/** The URL once for each of its hosts, which have commas between them; none if it is no URL. */
function urlsOfHosts(text: string): URL[] {
  const [, start = '', hosts = '', end = ''] =
    /^([^:/?#]+:\/\/(?:[^/?#@]*@)?)([^/?#@]*,[^/?#@]*)(.*)$/s.exec(text) ?? []
  const texts = hosts === '' ? [text] : hosts.split(',').map((host) => `${start}${host}${end}`)
  return texts.every((each) => URL.canParse(each)) ? texts.map((each) => new URL(each)) : []
}

function decoded(url: TransportUrl, text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw url.refuse('it is not percent-encoded UTF-8')
  }
}
