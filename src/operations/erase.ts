import { maxPayloadAgeMs } from '../delivery/attempts/event-reader.ts'
import { limits } from '../foundation/limits.ts'
import {
  assertTextOption,
  describe,
  integerOption,
  refuseUnknownKeys,
  invalidOption,
} from '../foundation/options.ts'
import { finishAuditRecord, writeAudit } from '../audit/audit.ts'
import type { Database, Executor } from '../database/database.ts'
import { scrubJobs } from '../delivery/jobs/scrub-jobs.ts'

/** Options of `bus.erase`. */
export interface EraseOptions {
  readonly tenantId: string
  /** The exact `subject` of the events. */
  readonly subject: string
  /** The person or system that requests it, 1 to 255 characters. Recorded. */
  readonly by: string
  /** The reason, up to 1,024 characters. Recorded. */
  readonly reason?: string | undefined
}

/** The result of one call of `bus.erase`. */
export interface Erased {
  /** The id of its record in `bus.erasures`. */
  readonly id: string
  /** Events whose payloads this call replaced. */
  readonly eventCount: number
  /** Records of failed attempts that this call emptied. */
  readonly failureCount: number
  /**
   * Files of archives that hold events of the subject, and are rewritten without them: by retention once an hour, or by
   * `bus.retention.rewriteArchives()`.
   */
  readonly archiveFiles: readonly string[]
}

/** The record of one call of `bus.erase`. */
export interface Erasure extends Omit<Erased, 'archiveFiles'> {
  readonly tenantId: string
  readonly subject: string
  readonly by: string
  readonly reason: string | undefined
  readonly startedAt: Date
  /** Undefined while it runs. It stays undefined if the call was interrupted; calling `bus.erase` again finishes the work. */
  readonly finishedAt: Date | undefined
}

/** Reads the records of erasures. */
export interface Erasures {
  /** The calls of `bus.erase`, latest first, up to `limit` (1 to 1,000, default 100); of one tenant if `tenantId` is given. */
  list: (filter?: {
    readonly tenantId?: string | undefined
    readonly limit?: number | undefined
  }) => Promise<Erasure[]>
}

/** Events in one transaction: it holds their row locks for milliseconds. */
const eventsPerBatch = 500

/** Maximum number of ids that one query returns. */
const maxFound = 50_000

/** Selects the events of a subject by its index; $1 is the tenant, $2 the subject. */
const isOfSubject = `hashtextextended(subject, hashtextextended(tenant_id, 0)) = hashtextextended($2::text, hashtextextended($1::text, 0))
  and tenant_id = $1 and subject = $2`

/** More than the lateness of a timer in another process. */
const marginMs = 250

/**
 * A call that was interrupted after its last commit may have been so recently: the handlers that started before are
 * waited for.
 */
const recentlySeconds = 60

/**
 * Replaces the payloads of a subject's events by a tombstone, in transactions of 500 events. The next call resumes an
 * interrupted one, because only events that are not yet erased are selected. Concurrent calls lock the rows in the
 * order of the ids, wait for each other, and count each event once.
 */
export async function eraseSubject(database: Database, given: EraseOptions): Promise<Erased> {
  const { tenantId, subject, by, reason } = checkErase(given)
  const { auditId, rows } = await database.transaction(async (client) => {
    const { rows: made } = await client.query<{ id: string }>('select bus.uuid_v7() as id')
    const erasureId = made[0]?.id ?? ''
    // Not the subject: bus.erasures names it, and the audit is kept for other purposes.
    const record = { by, reason, action: 'erase', tenantId, selection: { erasureId } }
    const audit = await writeAudit(client, record)
    const begun = await client.query<{ id: string; recent: boolean }>(
      `insert into bus.erasures (id, tenant_id, subject, erased_by, reason) values ($5, $1, $2, $3, $4)
     returning id, exists (
       select 1 from bus.events e
       where ${isOfSubject} and e.erased_at > clock_timestamp() - make_interval(secs => ${recentlySeconds})) as recent`,
      [tenantId, subject, by, reason ?? null, erasureId],
    )
    return { auditId: audit, rows: begun.rows }
  })
  const id = rows[0]?.id ?? ''
  let eventCount = 0
  for (;;) {
    const { rows: found } = await database.query<{ id: string }>(
      `select id from bus.events where ${isOfSubject} and erased_at is null order by id limit ${maxFound}`,
      [tenantId, subject],
    )
    if (found.length === 0) break
    for (let first = 0; first < found.length; first += eventsPerBatch) {
      const ids = found.slice(first, first + eventsPerBatch).map((event) => event.id)
      eventCount += await eraseBatch(database, id, ids)
    }
  }
  if (eventCount > 0 || rows[0]?.recent === true) await database.pause(maxPayloadAgeMs + marginMs)
  // Last, so that it also finds failures recorded by attempts that had started before.
  const failureCount = await scrubFailures(database, tenantId, subject)
  const archiveFiles = await database.transaction(async (client) => {
    // An erasure that is finished is one that the archives know of.
    const files = await recordInArchives(client, tenantId, subject)
    await client.query(
      'update bus.erasures set failure_count = $2, finished_at = clock_timestamp() where id = $1',
      [id, failureCount],
    )
    await finishAuditRecord(client, auditId, { eventCount, failureCount })
    return files
  })
  return { id, eventCount, failureCount, archiveFiles }
}

/**
 * Records which files of archives have to be rewritten, and resolves to their names. One that was rewritten for this subject before is left
 * out, unless it was archived again since.
 */
async function recordInArchives(executor: Executor, tenantId: string, subject: string): Promise<string[]> {
  const { rows } = await executor.query<{ file: string }>(
    `with found as (
       select f.archive_id, f.name, a.archived_at from bus.archive_files f join bus.archives a on a.id = f.archive_id
       where f.subject_hashes @> array[hashtextextended($2::text, hashtextextended($1::text, 0))]
     ), recorded as (
       insert into bus.archive_erasures as known (archive_id, file, tenant_id, subject)
       select archive_id, name, $1, $2 from found
       on conflict (archive_id, file, tenant_id, subject) do update set rewritten_at = null
       where known.rewritten_at < (select f.archived_at from found f where f.archive_id = known.archive_id and f.name = known.file)
     )
     select f.name as file from found f
     where not exists (
       select from bus.archive_erasures e
       where e.archive_id = f.archive_id and e.file = f.name and e.tenant_id = $1 and e.subject = $2 and e.rewritten_at >= f.archived_at)
     order by 1`,
    [tenantId, subject],
  )
  return rows.map(({ file }) => file)
}

/** Erases some events unless another call already has, and returns their number. */
async function eraseBatch(database: Database, erasureId: string, ids: readonly string[]): Promise<number> {
  const { rows } = await database.query<{ count: string }>(
    'select bus.erase_events($1, $2::uuid[]) as count',
    [erasureId, ids],
  )
  return Number(rows[0]?.count ?? 0)
}

/**
 * Empties the records of failed attempts at erased events, because an error may quote its event. pg-boss has no index
 * for this, so its tables are read once, in a statement for each subscription: one statement for all would lock every
 * table and its indexes.
 */
async function scrubFailures(database: Database, tenantId: string, subject: string): Promise<number> {
  const { rows: subscriptions } = await database.query<{ name: string }>(
    'select name from bus.subscriptions order by id',
  )
  let count = 0
  for (const { name } of subscriptions) count += await scrubJobs(database, name, { tenantId, subject })
  const { rows } = await database.query<{ count: string }>(
    `with keys as (
       update bus.ordered_keys k
       set failures = bus.scrub_failures(jsonb_build_object('failures', k.failures))->'failures'
       where k.failures is not null
         and bus.scrub_failures(jsonb_build_object('failures', k.failures))->'failures' is distinct from k.failures
         and exists (
           select from bus.events e
           where e.id = k.failed_event_id and e.tenant_id = $1 and e.subject = $2 and e.erased_at is not null)
       returning 1
     )
     select count(*) as count from keys`,
    [tenantId, subject],
  )
  await database.query('select bus.scrub_attempts($1, $2)', [tenantId, subject])
  return count + Number(rows[0]?.count ?? 0)
}

export function createErasures(database: Database): Erasures {
  return {
    async list(filter = {}) {
      if (filter === null || typeof filter !== 'object')
        throw invalidOption(`Expected a filter like { tenantId, limit }, got ${describe(filter)}`)
      refuseUnknownKeys(filter, ['tenantId', 'limit'], 'erasures.list')
      const { tenantId, limit } = filter
      const count = integerOption('limit', limit, limits.listLimit)
      if (tenantId !== undefined) assertTextOption('tenantId', tenantId, { max: 255 })
      const { rows } = await database.query<ErasureRow>(
        `select id, tenant_id, subject, erased_by, reason, event_count, failure_count, started_at, finished_at
         from bus.erasures where $1::text is null or tenant_id = $1 order by id desc limit $2`,
        [tenantId ?? null, count],
      )
      return rows.map((row) => ({
        id: row.id,
        tenantId: row.tenant_id,
        subject: row.subject,
        by: row.erased_by,
        reason: row.reason ?? undefined,
        eventCount: Number(row.event_count),
        failureCount: Number(row.failure_count),
        startedAt: row.started_at,
        finishedAt: row.finished_at ?? undefined,
      }))
    },
  }
}

interface ErasureRow extends Record<string, unknown> {
  readonly id: string
  readonly tenant_id: string
  readonly subject: string
  readonly erased_by: string
  readonly reason: string | null
  readonly event_count: string
  readonly failure_count: string
  readonly started_at: Date
  readonly finished_at: Date | null
}

function checkErase(given: EraseOptions): EraseOptions {
  if (given === null || typeof given !== 'object')
    throw invalidOption(`Expected options like { tenantId, subject, by }, got ${describe(given)}`)
  refuseUnknownKeys(given, ['tenantId', 'subject', 'by', 'reason'], 'erase')
  const { tenantId, subject, by, reason } = given
  assertTextOption('tenantId', tenantId, { max: 255 })
  assertTextOption('subject', subject, { max: 1024 })
  assertTextOption('by', by, { max: 255 })
  if (reason !== undefined) assertTextOption('reason', reason, { max: 1024 })
  return { tenantId, subject, by, reason }
}
