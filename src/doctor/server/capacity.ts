import { shareConnections } from '../../database/configuration/connection-shares.ts'
import { found, quoteName, type DoctorFinding } from '../check/finding.ts'
import type { Check } from '../check/check.ts'
import { hasOwnStorage } from './own-storage.ts'

interface ConnectionRow extends Record<string, unknown> {
  readonly server_limit: number
  readonly server_used: number
  readonly database_limit: number
  readonly database_used: number
  readonly role_limit: number
  readonly role_used: number
}

/** The connections of one process with the defaults: those of the pool, and the listening one. */
const wantedConnections = shareConnections(undefined, false).bus + 1

/**
 * Whether another process could connect. Superusers have some connections of their own, and no limits of their roles. Behind a pooler, processes
 * get its connections, which are open already.
 */
export const connectionsCheck: Check = {
  name: 'free connections',
  needs: 'supported server',
  async run({ read, facts }) {
    if (facts.isPooled) return []
    const [row] = await read<ConnectionRow>(
      `select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0) as server_limit,
         count(*)::int as server_used,
         d.datconnlimit as database_limit, (count(*) filter (where a.datname = current_database()))::int as database_used,
         case when r.rolsuper then -1 else r.rolconnlimit end as role_limit, (count(*) filter (where a.usename = r.rolname))::int as role_used
       from pg_stat_activity a cross join pg_database d cross join pg_roles r
       where a.backend_type = 'client backend' and d.datname = current_database() and r.rolname = session_user
       group by d.datconnlimit, r.rolsuper, r.rolconnlimit`,
    )
    if (row === undefined) return []
    const limits = [
      { of: 'the server', limit: row.server_limit, used: row.server_used, name: 'max_connections' },
      {
        of: `the database \`${facts.database}\``,
        limit: row.database_limit,
        used: row.database_used,
        name: 'database',
      },
      { of: `the role \`${facts.role}\``, limit: row.role_limit, used: row.role_used, name: 'role' },
    ].filter(({ limit, used }) => limit >= 0 && limit - used < wantedConnections)
    const [worst] = limits.toSorted((a, b) => a.limit - a.used - (b.limit - b.used))
    if (worst === undefined) return []
    const free = Math.max(0, worst.limit - worst.used)
    return [
      found(
        'connections-scarce',
        `${free} connections of ${worst.of} are free, of ${worst.limit}: a process of the bus opens up to ${wantedConnections}, so one that starts or reconnects may get none, and its events wait`,
        connectionsRemedy(worst.name, facts),
        { free, limit: worst.limit, used: worst.used, of: worst.name, wanted: wantedConnections },
      ),
    ]
  },
}

function connectionsRemedy(
  name: string,
  { database, role }: { readonly database: string; readonly role: string },
): string {
  const smaller = 'Or set `max` in the `database` of each service.'
  if (name === 'database') return `alter database ${quoteName(database)} connection limit -1; ${smaller}`
  if (name === 'role') return `alter role ${quoteName(role)} connection limit -1; ${smaller}`
  return `alter system set max_connections = …, and restart the server. ${smaller}`
}

interface LockRow extends Record<string, unknown> {
  readonly name: string
  readonly partitions: number
  readonly locks: number
  readonly per_session: number
  readonly sessions: number
}

/** How many locks one statement takes that looks into every partition of a table: one for each partition and each of its indexes. */
export const locksCheck: Check = {
  name: 'locks for partitions',
  needs: 'both schemas',
  async run({ read, database }) {
    const rows = await read<LockRow>(
      `select p.oid::regclass::text as name, count(*)::int as partitions,
         (1 + count(*) + sum((select count(*) from pg_index x where x.indrelid = i.inhrelid)))::int as locks,
         current_setting('max_locks_per_transaction')::int as per_session,
         current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int as sessions
       from pg_class p join pg_namespace n on n.oid = p.relnamespace join pg_inherits i on i.inhparent = p.oid
       where n.nspname in ('bus', '${database.bossSchemaName}') and p.relkind = 'p'
       group by p.oid order by locks desc limit 1`,
    )
    const [most] = rows
    if (most === undefined) return []
    const { name, partitions, locks, per_session: perSession, sessions } = most
    const slots = perSession * sessions
    if (locks <= slots / 2) return []
    const wanted = 64 * Math.ceil((2 * locks) / sessions / 64)
    return [
      found(
        'locks-scarce',
        `A statement that looks into all ${partitions} partitions of ${name} takes ${locks} locks, and the server has ${slots} for all sessions: it, and whatever runs beside it, fails with \`out of shared memory\``,
        `alter system set max_locks_per_transaction = ${wanted}; and restart the server.`,
        { table: name, partitions, locks, slots },
      ),
    ]
  },
}

interface BufferRow extends Record<string, unknown> {
  readonly buffers: number
  readonly hot: number
}

/** Whether what claims and fetches read over and over fits into the server's memory. */
export const buffersCheck: Check = {
  name: 'shared buffers',
  needs: 'both schemas',
  async run({ read, database }): Promise<readonly DoctorFinding[]> {
    const [row] = await read<BufferRow>(
      `select (select setting::float8 * 8192 from pg_settings where name = 'shared_buffers') as buffers,
         coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8 as hot
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.relkind = 'r' and (n.nspname = '${database.bossSchemaName}'
         or n.nspname = 'bus' and c.relname in ('outbox', 'ordered_keys', 'ordered_events', 'failing'))`,
    )
    if (row === undefined || row.hot <= row.buffers) return []
    // Neon keeps little in shared buffers, and the rest in a cache of its own.
    if (await hasOwnStorage({ read })) return []
    const megabytes = (bytes: number): number => Math.round(bytes / 1024 ** 2)
    return [
      found(
        'shared-buffers-small',
        `Outbox and queues take ${megabytes(row.hot)} MB, and the server keeps ${megabytes(row.buffers)} MB in memory (\`shared_buffers\`): claims and fetches wait for its disk`,
        `alter system set shared_buffers = … (a quarter of the machine's memory), and restart the server.`,
        { sharedBuffersBytes: row.buffers, hotBytes: row.hot },
      ),
    ]
  },
}
