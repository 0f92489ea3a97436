import { ConfigurationError } from './errors.ts'

/**
 * Refuses a Node version on which the bus would start but deliver nothing: pg-boss, and CommonJS services that load the
 * bus, need 22.12. package.json requires the same version.
 *
 * @throws a {@link ConfigurationError} `BUS_NODE_UNSUPPORTED`
 */
export function assertNodeVersion(version: string = process.versions.node): void {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major > 22 || (major === 22 && minor >= 12)) return
  throw new ConfigurationError(
    'BUS_NODE_UNSUPPORTED',
    `bossbus needs Node 22.12 or newer, and this is Node ${version}`,
  )
}
