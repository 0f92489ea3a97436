import { unmetNeeds } from '../../migrations/server-check.ts'
import { found, quoteName, type DoctorFinding } from '../check/finding.ts'
import type { Check, CheckContext } from '../check/check.ts'

interface Setting extends Record<string, unknown> {
  readonly name: string
  /** What a session has that sets nothing itself: sessions of the bus set some of them. */
  readonly value: string
}

/** A setting of the database or of a role, as `alter database … set` and `alter role … set` write them. */
interface StoredSetting extends Record<string, unknown> {
  readonly name: string
  readonly value: string
  /** Null: of the database. */
  readonly role: string | null
  /** Whether it is of this database, or of this role in this database. */
  readonly is_here: boolean
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
  'synchronous_standby_names',
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
    const stored = await read<StoredSetting>(
      `select split_part(c.entry, '=', 1) as name, substr(c.entry, strpos(c.entry, '=') + 1) as value, r.rolname as role, s.setdatabase <> 0 as is_here
       from pg_db_role_setting s cross join lateral unnest(s.setconfig) as c (entry) left join pg_roles r on r.oid = s.setrole
       where s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
       order by 1, 3 limit 1000`,
    )
    const values: Values = Object.fromEntries(rows.map(({ name, value }) => [name, value]))
    return [
      ...findCrashRisks(values, stored, context.facts.database),
      ...findReadOnly(values, stored, context.facts.database),
      ...findVacuumOff(values, await readTablesWithoutVacuum(context)),
      ...findTimeLimits(values, context),
      ...findRestrictedPlans(values),
    ]
  },
}

function findCrashRisks(
  values: Values,
  stored: readonly StoredSetting[],
  database: string,
): readonly DoctorFinding[] {
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
  const own = settingsLike(stored, 'synchronous_commit', ['off', 'false', 'no', '0'])
  if (values['synchronous_commit'] === 'off' || own.length > 0)
    findings.push(
      found(
        'synchronous-commit-off',
        'A commit is confirmed before it is on the disk (`synchronous_commit = off`): a crash of the server loses the events, and the deliveries, of the last moments',
        resetSql(own, database) ?? `alter system set synchronous_commit = on; ${reload};`,
        { of: own.map(({ role }) => role ?? database) },
      ),
    )
  return findings
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

function settingsLike(
  stored: readonly StoredSetting[],
  name: string,
  values: readonly string[],
): readonly StoredSetting[] {
  return stored.filter((each) => each.name === name && values.includes(each.value.toLowerCase()))
}

/** Undefined if nothing is stored: then it is a setting of the server. */
function resetSql(stored: readonly StoredSetting[], database: string): string | undefined {
  if (stored.length === 0) return undefined
  return stored
    .map(({ name, role, is_here: isHere }) => {
      const where = `database ${quoteName(database)}`
      if (role === null) return `alter ${isHere ? where : 'role all'} reset ${name};`
      return `alter role ${quoteName(role)}${isHere ? ` in ${where}` : ''} reset ${name};`
    })
    .join(' ')
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
      `${names.map((name) => `alter role ${quoteName(facts.role)} set ${name} = 0;`).join(' ')} Or give the bus a direct URL.`,
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

/** Settings that the bus needs and could not set for its own connection. */
export const neededSettingsCheck: Check = {
  name: 'settings that the bus needs',
  needs: 'supported server',
  async run({ database, facts, read }) {
    // A standby is read-only whatever is set.
    const unmet = (await unmetNeeds(database)).filter(
      ({ name }) => !(facts.isStandby && name === 'default_transaction_read_only'),
    )
    const rows = await read<{ role: string }>(
      `select coalesce(r.rolname, current_database()) as role
       from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole
       where s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
         and 'session_replication_role=replica' = any (s.setconfig)
       order by 1 limit 100`,
    )
    const inReplicaRole = rows.map(({ role }) => role)
    if (unmet.length === 0 && inReplicaRole.length === 0) return []
    const needs = unmet.map(
      ({ name, value, wanted }) => `\`${name}\` is \`${value}\` instead of \`${wanted}\``,
    )
    const what = [
      ...needs,
      ...inReplicaRole.map((role) => `\`session_replication_role\` is \`replica\` for ${role}`),
    ]
    return [
      found(
        'setting-unsupported',
        `${what.join(', ')}: publish or start is refused, because events would not be dispatched or be stored differently`,
        [
          ...unmet.map(
            ({ name, wanted }) =>
              `alter role ${quoteName(facts.role)} set ${name} = '${wanted === 'pg_catalog first' ? 'pg_catalog' : wanted}';`,
          ),
          ...inReplicaRole.map((role) => `alter role ${quoteName(role)} reset session_replication_role;`),
        ].join(' '),
        { settings: unmet, inReplicaRole },
      ),
    ]
  },
}

/** Whether this server takes what publishers and workers write. */
export const writableCheck: Check = {
  name: 'writes',
  needs: 'server',
  async run({ facts: { isStandby, isWritable } }) {
    if (isWritable) return []
    return [
      found(
        'read-only-server',
        isStandby
          ? 'The server is a standby: nothing can be published or delivered through this URL'
          : 'The server takes no writes (`transaction_read_only`): nothing can be published or delivered through this URL',
        isStandby
          ? 'Give the bus the URL of the primary, or name all hosts: postgres://one,two/db?target_session_attrs=read-write'
          : 'alter role … or database … reset default_transaction_read_only; or give the bus another URL.',
        { isStandby },
      ),
    ]
  },
}

/** Commits that wait for a standby that is not there. */
export const synchronousStandbyCheck: Check = {
  name: 'synchronous standbys',
  needs: 'writes',
  async run({ read }) {
    const [row] = await read<{ names: string; connected: number; sees_all: boolean }>(
      `select current_setting('synchronous_standby_names') as names,
         (select count(*)::int from pg_stat_replication r where r.sync_state in ('sync', 'quorum')) as connected,
         pg_has_role('pg_read_all_stats', 'usage') as sees_all
       where current_setting('synchronous_commit') not in ('off', 'local')`,
    )
    // Without that role one sees no states.
    if (row === undefined || row.names.trim() === '' || row.connected > 0 || !row.sees_all) return []
    return [
      found(
        'synchronous-standby-missing',
        `No standby of \`synchronous_standby_names = '${row.names}'\` is connected: every commit waits for one, so publishers and workers hang`,
        `Start the standby, or go on without: alter system set synchronous_standby_names = ''; ${reload};`,
        { names: row.names },
      ),
    ]
  },
}
