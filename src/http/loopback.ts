import { isIPv6 } from 'node:net'

/** What is looked at of a request. */
export interface Peer {
  /** The address of the connection itself, whatever headers say. */
  readonly address: string | undefined
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

/** Headers by which proxies say that they forward something, besides all that begin with `x-forwarded-`. */
const forwarding: readonly string[] = [
  'forwarded',
  'x-real-ip',
  'via',
  'x-original-host',
  'x-client-ip',
  'true-client-ip',
  'cf-connecting-ip',
]

/**
 * Whether a request comes from this machine and is for it: over a loopback address, without a proxy that would forward those of others, and
 * with a host that is a loopback name. A page whose own name resolves to this machine (DNS rebinding) has another host.
 */
export function isFromThisMachine({ address, headers }: Peer): boolean {
  if (address === undefined || !isLoopbackAddress(address)) return false
  if (Object.keys(headers).some(isForwarding)) return false
  const { host } = headers
  return typeof host === 'string' && isLoopbackHost(host)
}

const isForwarding = (name: string): boolean => name.startsWith('x-forwarded-') || forwarding.includes(name)

function isLoopbackAddress(address: string): boolean {
  const plain = address.toLowerCase().replace(/^::ffff:/, '')
  return plain === '::1' || /^127(?:\.\d{1,3}){3}$/.test(plain)
}

/** Whether a name or an address, without a port, is one of this machine. */
export function isLoopbackName(name: string): boolean {
  const plain = name.toLowerCase()
  return plain === 'localhost' || plain.endsWith('.localhost') || isLoopbackAddress(plain)
}

/** The same with or without a port, and with brackets around an IPv6 address. */
function isLoopbackHost(host: string): boolean {
  const name = host.replace(/:\d{1,5}$/, '')
  if (name.startsWith('[') && name.endsWith(']')) {
    const address = name.slice(1, -1)
    return isIPv6(address) && isLoopbackAddress(address)
  }
  return isLoopbackName(name)
}
