import { HttpError } from '../foundation/errors.ts'

/** What is looked at of a request. */
export interface OriginHeaders {
  readonly origin?: string | undefined
  readonly 'sec-fetch-site'?: string | string[] | undefined
}

/**
 * Refuses requests that a page of another origin has a browser send. Browsers say so in `Sec-Fetch-Site`, whatever proxies do with host and
 * prefix; over plain HTTP they send `Origin` alone, which is compared with the host that the request is for. What is no browser sends neither.
 *
 * @param host - with its port, as the app knows it: behind a proxy that changes it, by its option `trustProxy`
 * @throws an {@link HttpError} `BUS_HTTP_CROSS_ORIGIN`
 */
export function assertSameOrigin(headers: OriginHeaders, host: string): void {
  const { origin } = headers
  const site = headers['sec-fetch-site']
  if (site !== undefined) {
    if (site === 'same-origin' || site === 'none') return
    throw crossOrigin('a page of another origin has sent it')
  }
  if (origin === undefined || isOf(origin, host)) return
  throw crossOrigin(
    `it comes from another origin than this host, ${host.slice(0, 255)}. Behind a proxy that changes the host, set \`trustProxy\` of Fastify`,
  )
}

/** Whether a page is of a host, whose port may be said although it is that of the scheme. False for `null`, which pages without an origin send. */
function isOf(origin: string, host: string): boolean {
  if (!URL.canParse(origin)) return false
  const { protocol, host: itsHost } = new URL(origin)
  const own = `${protocol}//${host}`
  return itsHost !== '' && URL.canParse(own) && new URL(own).host === itsHost
}

function crossOrigin(why: string): HttpError {
  return new HttpError(403, 'BUS_HTTP_CROSS_ORIGIN', `Expected a request from this origin: ${why}`)
}
