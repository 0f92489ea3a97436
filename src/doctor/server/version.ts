import { found } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

/** The last day on which a version gets fixes, by https://www.postgresql.org/support/versioning/ of November 2026. */
const lastFixes: Readonly<Record<number, string>> = {
  14: '2026-11-12',
  15: '2027-11-11',
  16: '2028-11-09',
  17: '2029-11-08',
  18: '2030-11-14',
}

const oldestMajor = 14

export const versionCheck: Check = {
  name: 'version of the server',
  needs: 'server',
  async run({ facts: { serverVersion, serverVersionText }, now }) {
    const major = Math.floor(serverVersion / 10_000)
    if (major < oldestMajor)
      return [
        found(
          'server-too-old',
          `The server is PostgreSQL ${serverVersionText}: bossbus needs ${oldestMajor} or newer, so nothing is published or delivered here`,
          `Upgrade the server with pg_upgrade or a dump: https://www.postgresql.org/docs/current/upgrading.html`,
          { version: serverVersionText, oldest: oldestMajor },
        ),
      ]
    const day = lastFixes[major]
    if (day === undefined || now() <= new Date(`${day}T23:59:59Z`)) return []
    return [
      found(
        'server-end-of-life',
        `PostgreSQL ${major} has had its last release on ${day}: bugs that lose or show data are no longer mended`,
        'Upgrade the server with pg_upgrade or a dump: https://www.postgresql.org/docs/current/upgrading.html',
        { version: serverVersionText, lastRelease: day },
      ),
    ]
  },
}
