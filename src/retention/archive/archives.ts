import type { Executor } from '../../database/database.ts'
import { limits } from '../../foundation/limits.ts'
import { assertObject, idOption, integerOption, refuseUnknownKeys } from '../../foundation/options.ts'
import type { ArchivedTable } from './manifest.ts'

/** A copy of a range of the log and the ledger, made before its partitions are dropped. */
export interface Archive {
  readonly id: string
  /** The folder of its files, such as `2026_09`. */
  readonly name: string
  /** `archiving`: it is being written, or is done again after an interruption. `archived`: it was read back and compared. `dropped`: the range is gone from the log. */
  readonly state: 'archiving' | 'archived' | 'dropped'
  /** The service that has written it. */
  readonly service: string
  /** For `restoreArchive`. Undefined while it is being written. */
  readonly manifest: string | undefined
  /** The times of publication of its events; `to` is not included. */
  readonly from: Date
  readonly to: Date
  /** The rows of each table. Empty while it is being written. */
  readonly rowCounts: Readonly<Partial<Record<ArchivedTable, number>>>
  readonly fileCount: number
  readonly byteCount: number
  /** Files that hold events of subjects that were erased afterwards, and are still to be rewritten. */
  readonly pendingFileCount: number
  readonly startedAt: Date
  readonly archivedAt: Date | undefined
  readonly droppedAt: Date | undefined
}

/** Which archives to read. */
export interface ArchiveFilter {
  /** Only archives that were begun before this one: the `id` of the last one of the page before. */
  readonly after?: string | undefined
  /** 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
}

interface ArchiveRow extends Record<string, unknown> {
  readonly id: string
  readonly name: string
  readonly state: Archive['state']
  readonly service: string
  readonly manifest: string | null
  readonly from_ms: number
  readonly to_ms: number
  readonly tables: Readonly<Partial<Record<ArchivedTable, { readonly rowCount: number }>>>
  readonly files: number
  readonly bytes: string
  readonly pending: number
  readonly started_at: Date
  readonly archived_at: Date | null
  readonly dropped_at: Date | null
}

/** The archives of the database, latest first. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export async function readArchives(executor: Executor, filter: ArchiveFilter = {}): Promise<Archive[]> {
  assertObject('a filter like { after, limit }', filter)
  refuseUnknownKeys(filter, ['after', 'limit'], 'retention.archives')
  const limit = integerOption('limit', filter.limit, limits.listLimit)
  const after = filter.after === undefined ? undefined : idOption('after', filter.after)
  const { rows } = await executor.query<ArchiveRow>(
    `select a.id, a.name, a.state, a.service, a.manifest, bus.uuid_ms(a.lower_bound)::float8 as from_ms, bus.uuid_ms(a.upper_bound)::float8 as to_ms,
       a.tables, f.files, f.bytes, a.started_at, a.archived_at, a.dropped_at,
       (select count(distinct e.file)::int from bus.archive_erasures e where e.archive_id = a.id and e.rewritten_at is null) as pending
     from (select * from bus.archives where $1::uuid is null or id < $1 order by id desc limit ${limit}) a
     cross join lateral (
       select count(*)::int as files, coalesce(sum(byte_count), 0)::bigint as bytes from bus.archive_files where archive_id = a.id
     ) f
     order by a.id desc`,
    [after ?? null],
  )
  return rows.map((row) => ({
    ...{ id: row.id, name: row.name, state: row.state, service: row.service },
    manifest: row.manifest ?? undefined,
    from: new Date(row.from_ms),
    to: new Date(row.to_ms),
    rowCounts: Object.fromEntries(
      Object.entries(row.tables).map(([table, { rowCount }]) => [table, rowCount]),
    ),
    fileCount: row.files,
    byteCount: Number(row.bytes),
    pendingFileCount: row.pending,
    startedAt: row.started_at,
    archivedAt: row.archived_at ?? undefined,
    droppedAt: row.dropped_at ?? undefined,
  }))
}
