import { found, quoteName, type DoctorFinding } from '../check/finding.ts'
import type { Check, CheckContext } from '../check/check.ts'
import { hasOwnStorage } from './own-storage.ts'
import { readStoredSettings, resetSql, settingsLike, type StoredSetting } from './stored-settings.ts'

interface Setting extends Record<string, unknown> {
  readonly name: string
  /** What a session has that sets nothing itself: sessions of the bus set some of them. */
  readonly value: string
}

type Values = Readonly<Record<string, string>>

const reload = 'select pg_reload_conf()'

/** Plans that the statements of the bus and of pg-boss need. */
const planSettings = [
  'enable_indexscan',
  'enable_indexonlyscan',
  'enable_bitmapscan',
  'enable_nestloop',
  'enable_sort',
  'enable_partition_pruning',
]

const readSettings = [
  'fsync',
  'full_page_writes',
  'synchronous_commit',
  'autovacuum',
  'track_counts',
  'statement_timeout',
  'lock_timeout',
  'transaction_timeout',
  'default_transaction_read_only',
  ...planSettings,
]

/** Settings of the server, the database or the role with which events are lost, refused or late. */
export const settingsCheck: Check = {
  name: 'settings of the server',
  needs: 'supported server',
  async run(context) {
    const { read } = context
    const rows = await read<Setting>(
      `select name, reset_val as value from pg_settings where name in (${readSettings.map((name) => `'${name}'`).join(', ')})`,
    )
    const stored = await readStoredSettings(context)
    const values: Values = Object.fromEntries(rows.map(({ name, value }) => [name, value]))
    return [
      ...((await hasOwnStorage(context)) ? [] : findUnsafeWrites(values)),
      ...findUnconfirmedCommits(values, stored, context.facts.database),
      ...findReadOnly(values, stored, context.facts.database),
      ...findVacuumOff(values, await readTablesWithoutVacuum(context)),
      ...findTimeLimits(values, context),
      ...findRestrictedPlans(values),
    ]
  },
}

function findUnsafeWrites(values: Values): readonly DoctorFinding[] {
  const findings: DoctorFinding[] = []
  if (values['fsync'] === 'off')
    findings.push(
      found(
        'fsync-off',
        'The server does not wait for its disk (`fsync = off`): a crash of the machine loses published events, or the whole database',
        `alter system set fsync = on; ${reload};`,
      ),
    )
  if (values['full_page_writes'] === 'off')
    findings.push(
      found(
        'full-page-writes-off',
        'A crash of the machine can leave pages of the log and the queues half written (`full_page_writes = off`)',
        `alter system set full_page_writes = on; ${reload};`,
      ),
    )
  return findings
}

function findUnconfirmedCommits(
  values: Values,
  stored: readonly StoredSetting[],
  database: string,
): readonly DoctorFinding[] {
  const own = settingsLike(stored, 'synchronous_commit', ['off', 'false', 'no', '0'])
  if (values['synchronous_commit'] !== 'off' && own.length === 0) return []
  return [
    found(
      'synchronous-commit-off',
      'A commit is confirmed before it is on the disk (`synchronous_commit = off`): a crash of the server loses the events, and the deliveries, of the last moments',
      resetSql(own, database) ?? `alter system set synchronous_commit = on; ${reload};`,
      { of: own.map(({ role }) => role ?? database) },
    ),
  ]
}

function findReadOnly(
  values: Values,
  stored: readonly StoredSetting[],
  database: string,
): readonly DoctorFinding[] {
  const own = settingsLike(stored, 'default_transaction_read_only', ['on', 'true', 'yes', '1'])
  if (values['default_transaction_read_only'] !== 'on' && own.length === 0) return []
  return [
    found(
      'read-only-by-default',
      'Transactions are read-only unless they say otherwise (`default_transaction_read_only`): a publish in a transaction of your service is refused. The bus itself sets it for its own sessions',
      resetSql(own, database) ?? `alter system reset default_transaction_read_only; ${reload};`,
      { of: own.map(({ role }) => role ?? database) },
    ),
  ]
}

async function readTablesWithoutVacuum({ read, database }: CheckContext): Promise<readonly string[]> {
  const rows = await read<{ name: string }>(
    `select c.oid::regclass::text as name
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('bus', '${database.bossSchemaName}') and c.relkind = 'r'
       and exists (select from unnest(c.reloptions) as o (entry) where o.entry ~* '^autovacuum_enabled=(off|false|no|0|f|n)$')
     order by 1 limit 100`,
  )
  return rows.map(({ name }) => name)
}

function findVacuumOff(values: Values, tables: readonly string[]): readonly DoctorFinding[] {
  const off = ['autovacuum', 'track_counts'].filter((name) => values[name] === 'off')
  if (off.length === 0 && tables.length === 0) return []
  const what =
    off.length > 0 ? off.map((name) => `\`${name} = off\``).join(', ') : tables.slice(0, 3).join(', ')
  return [
    found(
      'autovacuum-off',
      `No autovacuum (${what}): each delivery leaves dead rows in outbox and queues, so claims and fetches get slower and slower`,
      off.length > 0
        ? `${off.map((name) => `alter system set ${name} = on;`).join(' ')} ${reload};`
        : tables.map((table) => `alter table ${table} reset (autovacuum_enabled);`).join(' '),
      { settings: off, tables },
    ),
  ]
}

/** On a direct connection the bus sets its own limits. Behind a pooler its single statements have those of the server. */
function findTimeLimits(values: Values, { facts }: CheckContext): readonly DoctorFinding[] {
  if (!facts.isPooled) return []
  const names = ['statement_timeout', 'lock_timeout', 'transaction_timeout'].filter(
    (name) => (values[name] ?? '0') !== '0',
  )
  if (names.length === 0) return []
  return [
    found(
      'time-limits-behind-pooler',
      `Statements of the bus are ended by ${names.map((name) => `\`${name}\``).join(', ')}, which it cannot set behind a pooler: a slow fetch fails, and its events come late`,
      `${names.map((name) => `alter role ${quoteName(facts.role)} in database ${quoteName(facts.database)} set ${name} = 0;`).join(' ')} Or give the bus a direct URL.`,
      { milliseconds: Object.fromEntries(names.map((name) => [name, Number(values[name])])) },
    ),
  ]
}

function findRestrictedPlans(values: Values): readonly DoctorFinding[] {
  const off = planSettings.filter((name) => values[name] === 'off')
  if (off.length === 0) return []
  return [
    found(
      'plans-restricted',
      `The server may not use plans that claims and fetches need (${off.join(', ')} = off): they read whole tables, and get slower with the log`,
      `${off.map((name) => `alter system reset ${name};`).join(' ')} ${reload}; or reset it for the role or the database.`,
      { settings: off },
    ),
  ]
}
