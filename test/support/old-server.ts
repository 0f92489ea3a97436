import pg from 'pg'

/**
 * The run's own server is PostgreSQL 18. A supported older one, where uuid v7 is emulated, is looked for in
 * OLD_DATABASE_URL, then on the usual port of this machine; databases made there are dropped again.
 */
export const oldServer = await findOldServer([
  process.env['OLD_DATABASE_URL'],
  'postgres://postgres@127.0.0.1:5432/postgres',
])
/** For the name of a test that needs it. */
export const where =
  oldServer === undefined
    ? '(SKIPPED: set OLD_DATABASE_URL to a server of PostgreSQL 14 to 17)'
    : `(PostgreSQL ${oldServer.version})`

async function findOldServer(
  urls: readonly (string | undefined)[],
): Promise<{ url: string; version: string } | undefined> {
  for (const url of urls.filter((value) => value !== undefined)) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 })
    try {
      await client.connect()
      const { rows } = await client.query<{ version: string }>(
        `select split_part(current_setting('server_version'), ' ', 1) as version
         where current_setting('server_version_num')::int between 140000 and 179999`,
      )
      if (rows[0] !== undefined) return { url, version: rows[0].version }
    } catch {
      // Not there, or not for us.
    } finally {
      await client.end().catch(() => {})
    }
  }
  return undefined
}
