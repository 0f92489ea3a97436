import { found, quoteName } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

interface Row extends Record<string, unknown> {
  readonly encoding: string
  readonly recorded: string | null
  readonly actual: string | null
}

/** What the texts of the database depend on: the characters that it can store, and the order that its indexes have. */
export const encodingCheck: Check = {
  name: 'encoding and collation of the database',
  needs: 'supported server',
  async run({ read, facts }) {
    // PostgreSQL 14 does not record the version of a database's collation.
    const versions =
      facts.serverVersion >= 150_000
        ? 'd.datcollversion as recorded, pg_database_collation_actual_version(d.oid) as actual'
        : 'null::text as recorded, null::text as actual'
    const [row] = await read<Row>(
      `select pg_encoding_to_char(d.encoding) as encoding, ${versions} from pg_database d where d.datname = current_database()`,
    )
    if (row === undefined) return []
    const { encoding, recorded, actual } = row
    const isOther = encoding !== 'UTF8'
    const isChanged = recorded !== null && actual !== null && recorded !== actual
    const name = quoteName(facts.database)
    return [
      ...(isOther
        ? [
            found(
              'encoding-not-utf8',
              `The database stores texts in ${encoding}: migrations, and events with characters that it lacks, are refused, and with such an event the transaction that publishes it`,
              `Move to a database in UTF8: create database … encoding 'UTF8' template template0; then pg_dump and pg_restore.`,
              { encoding },
            ),
          ]
        : []),
      ...(isChanged
        ? [
            found(
              'collation-changed',
              'The operating system orders texts differently than when the indexes were built: a key may not be found in its index, and its event be stored or delivered twice',
              `As the owner of the database: reindex database ${name}; alter database ${name} refresh collation version;`,
              { recorded, actual },
            ),
          ]
        : []),
    ]
  },
}
