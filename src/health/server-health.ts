import type { Database } from '../database/database.ts'
import { createFinding, maxItems, type Finding } from './finding.ts'
import { readLimited } from './limited-read.ts'

interface ServerState extends Record<string, unknown> {
  readonly transactions: readonly {
    readonly pid: number
    readonly applicationName: string | null
    readonly role: string | null
    readonly state: string | null
    readonly ageSeconds: number
  }[]
  readonly prepared: readonly { readonly gid: string; readonly role: string; readonly ageSeconds: number }[]
  readonly slots: readonly {
    readonly name: string
    readonly retainedBytes: number | null
    readonly xminAge: number | null
    readonly catalogXminAge: number | null
  }[]
}

/**
 * What holds back vacuum or the write-ahead log on this server: transactions of this database that are older than a limit, prepared ones too, and
 * replication slots that nobody reads, but for those of a standby: there they are kept for the day on which it becomes the primary. A role without
 * `pg_read_all_stats` sees the transactions of its own roles only.
 */
export async function findServerProblems(
  database: Pick<Database, 'query'>,
  transactionLimitSeconds: number,
): Promise<readonly Finding[]> {
  const limit = `interval '${transactionLimitSeconds} seconds'`
  const [state] = await readLimited<ServerState>(
    database,
    `select
       (select coalesce(json_agg(t), '[]') from (
         select a.pid, a.application_name as "applicationName", a.usename as role, a.state,
           round(extract(epoch from clock_timestamp() - a.xact_start))::float8 as "ageSeconds"
         from pg_stat_activity a
         where a.datname = current_database() and a.backend_type = 'client backend' and a.xact_start < clock_timestamp() - ${limit}
         order by a.xact_start limit ${maxItems}
       ) t) as transactions,
       (select coalesce(json_agg(p), '[]') from (
         select p.gid, p.owner as role, round(extract(epoch from clock_timestamp() - p.prepared))::float8 as "ageSeconds"
         from pg_prepared_xacts p where p.database = current_database() and p.prepared < clock_timestamp() - ${limit}
         order by p.prepared limit ${maxItems}
       ) p) as prepared,
       (select coalesce(json_agg(s), '[]') from (
         select s.slot_name as name, pg_wal_lsn_diff(case when not pg_is_in_recovery() then pg_current_wal_lsn() end, s.restart_lsn)::float8 as "retainedBytes",
           age(s.xmin) as "xminAge", age(s.catalog_xmin) as "catalogXminAge"
         from pg_replication_slots s
         where not pg_is_in_recovery() and not s.active and not s.temporary and (s.restart_lsn is not null or s.xmin is not null or s.catalog_xmin is not null)
           and (s.database is null or s.database = current_database())
         order by s.slot_name limit ${maxItems}
       ) s) as slots`,
  )
  if (state === undefined) return []
  const { transactions, prepared, slots } = state
  const findings: Finding[] = []
  const [oldest] = transactions
  if (oldest !== undefined) {
    const { pid, applicationName, ageSeconds } = oldest
    findings.push(
      createFinding(
        'old-transaction',
        `A transaction has been open for ${ageSeconds} s: process ${pid} of ${applicationName || 'an unnamed application'}`,
        { transactions },
      ),
    )
  }
  const [firstPrepared] = prepared
  if (firstPrepared !== undefined)
    findings.push(
      createFinding(
        'prepared-transaction',
        `A prepared transaction has been open for ${firstPrepared.ageSeconds} s: ${firstPrepared.gid}`,
        { prepared },
      ),
    )
  if (slots.length > 0)
    findings.push(
      createFinding(
        'replication-slot-inactive',
        `Nobody reads from the replication slot ${slots
          .map(({ name }) => name)
          .slice(0, 3)
          .join(', ')}`,
        { slots },
      ),
    )
  return findings
}
