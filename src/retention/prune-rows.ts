import { finishAuditRecord, writeAudit } from '../audit/audit.ts'
import type { Database, Executor } from '../database/database.ts'
import type { RetentionPolicy } from './policy.ts'

/** How many rows, by what they are. */
export type PrunedCounts = Readonly<Partial<Record<PrunedKind | 'keys', number>>>

const kinds = [
  'failing',
  'cancellations',
  'event_copies',
  'receipts',
  'receipt_batches',
  'attempts',
  'rollups',
  'operations',
  'audit',
  'quarantine',
] as const

type PrunedKind = (typeof kinds)[number]

/** Rows of one statement: some tens of milliseconds. */
const sliceRows = 2000

/** Pages of the keys that one statement reads: half a megabyte, some thousands of keys. */
const slicePages = 64

/** The keys are gone through once a day. */
const keyIntervalHours = 24

/** Deletes slices of rows, and keeps one audit record of all of them. */
export interface PruneRecord {
  /** Deletes a slice in a transaction, which also writes the record if it is the first one that deletes anything. */
  readonly deleteSlice: <T extends { readonly deleted: number }>(
    slice: (executor: Executor) => Promise<T>,
  ) => Promise<T>
  readonly finish: (deleted: PrunedCounts) => Promise<void>
}

export function createPruneRecord(
  database: Database,
  actor: { readonly by: string; readonly reason?: string | undefined },
): PruneRecord {
  let id: string | undefined
  return {
    async deleteSlice(slice) {
      const [result, written] = await database.transaction(async (client) => {
        const done = await slice(client)
        return [
          done,
          done.deleted > 0 && id === undefined
            ? await writeAudit(client, { by: actor.by, reason: actor.reason, action: 'retention.prune' })
            : id,
        ] as const
      })
      id = written
      return result
    },
    async finish(deleted) {
      if (id !== undefined) await finishAuditRecord(database, id, deleted)
    },
  }
}

/** Deletes rows that are older than they are kept, or whose events were dropped, a slice at a time. Only counts above zero. */
export async function pruneRows(
  database: Database,
  { deleteSlice }: PruneRecord,
  isStopping: () => boolean,
): Promise<PrunedCounts> {
  const counts: Partial<Record<PrunedKind, number>> = {}
  for (const kind of kinds) {
    let count = 0
    while (!isStopping()) {
      const { deleted } = await deleteSlice(async (executor) => {
        const { rows } = await executor.query<{ count: string }>('select bus.prune_rows($1, $2) as count', [
          kind,
          sliceRows,
        ])
        return { deleted: Number(rows[0]?.count ?? 0) }
      })
      if (deleted === 0) break
      count += deleted
      await database.faultPoint?.('retention.slice-deleted')
    }
    if (count > 0) counts[kind] = count
  }
  return counts
}

/** Deletes keys that are older than they are remembered, once a day, a slice at a time. Goes on where an interrupted call has stopped. */
export async function pruneKeys(
  database: Database,
  { deleteSlice }: PruneRecord,
  isStopping: () => boolean,
): Promise<number> {
  const { rows: due } = await database.query<{ due: boolean }>(
    `select key_block > 0 or keys_swept_at is null or keys_swept_at < now() - make_interval(hours => ${keyIntervalHours}) as due
     from bus.retention_state`,
  )
  let count = 0
  if (due[0]?.due !== true) return count
  while (!isStopping()) {
    const { deleted, isEnd } = await deleteSlice(async (executor) => {
      const { rows } = await executor.query<{ deleted: string; is_end: boolean }>(
        'select deleted, is_end from bus.prune_event_keys($1)',
        [slicePages],
      )
      return { deleted: Number(rows[0]?.deleted ?? 0), isEnd: rows[0]?.is_end !== false }
    })
    count += deleted
    await database.faultPoint?.('retention.slice-deleted')
    if (isEnd) break
  }
  return count
}

/** What would be deleted by age, counted up to 10,001. Keys are not counted: that would read all of them. */
export async function countPrunable(executor: Executor, policy: RetentionPolicy): Promise<PrunedCounts> {
  const { rows } = await executor.query<{
    rollups: string
    operations: string
    audit: string
    quarantine: string
  }>(
    `select
       (select count(*) from (select from bus.rollups where minute < now() - make_interval(days => $1) limit 10001) r) as rollups,
       (select count(*) from (select from bus.operations where finished_at < now() - make_interval(days => $2) limit 10001) o) as operations,
       (select count(*) from (
         select from bus.audit where id < bus.uuid_v7_floor(now() - make_interval(days => $3)) and (finished_at is not null or operation_id is null)
         limit 10001) a) as audit,
       (select count(*) from (
         select from bus.quarantined_messages
         where last_received_at < now() - make_interval(days => $4) and state <> 'retrying'
           and coalesce(decided_at, last_received_at) < now() - make_interval(days => $4)
         limit 10001) q) as quarantine`,
    [policy.rollupsDays, policy.operationsDays, policy.auditDays, policy.quarantineDays],
  )
  const quarantine = Number(rows[0]?.quarantine ?? 0)
  return {
    rollups: Number(rows[0]?.rollups ?? 0),
    operations: Number(rows[0]?.operations ?? 0),
    audit: Number(rows[0]?.audit ?? 0),
    ...(quarantine > 0 ? { quarantine } : {}),
  }
}
