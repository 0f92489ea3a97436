import { unmetNeeds } from '../../migrations/server-check.ts'
import { found, quoteName } from '../check/finding.ts'
import type { Check } from '../check/check.ts'
import { readStoredSettings, resetSql, settingsLike } from './stored-settings.ts'

/** Settings that the bus needs and could not set for its own connection, and those that keep triggers from firing for a service. */
export const neededSettingsCheck: Check = {
  name: 'settings that the bus needs',
  needs: 'supported server',
  async run(context) {
    const { database, facts } = context
    // As a start reads them: what limits the statements of the doctor sets the search path too. A standby is read-only whatever is set.
    const unmet = (await unmetNeeds({ query: async (text) => database.pool.query(text) })).filter(
      ({ name }) => !(facts.isStandby && name === 'default_transaction_read_only'),
    )
    const replica = settingsLike(await readStoredSettings(context), 'session_replication_role', ['replica'])
    if (unmet.length === 0 && replica.length === 0) return []
    const inReplicaRole = replica.map(({ role }) => role ?? facts.database)
    const what = [
      ...unmet.map(({ name, value, wanted }) => `\`${name}\` is \`${value}\` instead of \`${wanted}\``),
      ...inReplicaRole.map((name) => `\`session_replication_role\` is \`replica\` for ${name}`),
    ]
    return [
      found(
        'setting-unsupported',
        `${what.join(', ')}: publish or start is refused, because events would not be dispatched or be stored differently`,
        [
          ...unmet.map(
            ({ name, value, wanted }) =>
              `alter role ${quoteName(facts.role)} in database ${quoteName(facts.database)} set ${name} = ${name === 'search_path' ? withoutCatalog(value) : `'${wanted}'`};`,
          ),
          resetSql(replica, facts.database) ?? '',
        ]
          .filter((statement) => statement !== '')
          .join(' '),
        { settings: unmet, inReplicaRole },
      ),
    ]
  },
}

/** The same search path, in which PostgreSQL's own schema comes first because it is not named. */
function withoutCatalog(path: string): string {
  return path
    .split(',')
    .map((schema) => schema.trim())
    .filter((schema) => schema.replaceAll('"', '') !== 'pg_catalog')
    .join(', ')
}
