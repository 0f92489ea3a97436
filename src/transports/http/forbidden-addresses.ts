import { BlockList, isIP, isIPv6 } from 'node:net'

/** Networks that no public host has: this machine, its neighbours, clouds' metadata, and what is reserved (IANA special-purpose registries). */
const networks: readonly (readonly [network: string, bits: number])[] = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.31.196.0', 24],
  ['192.52.193.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['192.175.48.0', 24],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
]

/** The part of IPv6 that is assigned to public hosts: everything else is forbidden. */
const publicIpv6 = new BlockList()
publicIpv6.addSubnet('2000::', 3, 'ipv6')

const forbidden = new BlockList()
for (const [network, bits] of networks) forbidden.addSubnet(network, bits, 'ipv4')
for (const [network, bits] of [
  // Protocol assignments, among them Teredo and ORCHID; documentation; 6to4, which has an IPv4 address inside.
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
] as const)
  forbidden.addSubnet(network, bits, 'ipv6')

/** Whether an IP address is one that a webhook must not reach: not that of a public host. */
export function isForbiddenAddress(address: string): boolean {
  if (isIP(address) === 0) return true
  if (!isIPv6(address)) return forbidden.check(address, 'ipv4')
  const bare = address.replace(/%.*$/, '')
  return !publicIpv6.check(bare, 'ipv6') || forbidden.check(bare, 'ipv6')
}
