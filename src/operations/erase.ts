import { maxPayloadAgeMs } from '../delivery/attempts/event-reader.ts'
import { limits } from '../foundation/limits.ts'
import { describe, integerOption, refuseUnknownKeys, invalidOption } from '../foundation/options.ts'
import type { Database } from '../database/database.ts'
import { characterCount, isLonger, textProblem } from '../foundation/text.ts'
import { scrubJobs } from '../delivery/jobs/scrub-jobs.ts'

/** What `bus.erase` takes. */
export interface EraseOptions {
  readonly tenantId: string
  /** The `subject` of the events, exactly. */
  readonly subject: string
  /** Who asks for it: recorded, 1 to 255 characters. */
  readonly by: string
  /** Why: recorded, up to 1,024 characters. */
  readonly reason?: string | undefined
}

/** What one call of `bus.erase` did. */
export interface Erased {
  /** The id of its record in `bus.erasures`. */
  readonly id: string
  /** Events whose payloads were replaced by this call. */
  readonly eventCount: number
  /** Records of failed attempts that were emptied by this call. */
  readonly failureCount: number
}

/** The record of one call of `bus.erase`. */
export interface Erasure extends Erased {
  readonly tenantId: string
  readonly subject: string
  readonly by: string
  readonly reason: string | undefined
  readonly startedAt: Date
  /** Undefined while it runs, and for good where it was cut off: calling `bus.erase` again goes on. */
  readonly finishedAt: Date | undefined
}

/** Reads who erased what. */
export interface Erasures {
  /** The calls of `bus.erase`, the latest first, up to `limit` (1 to 1,000, default 100); of one tenant, when it is named. */
  list: (filter?: {
    readonly tenantId?: string | undefined
    readonly limit?: number | undefined
  }) => Promise<Erasure[]>
}

/** Events in one transaction: their rows are locked for milliseconds. */
const eventsPerBatch = 500

/** Ids looked for at a time. */
const maxFound = 50_000

/** The events of a subject, $1 its tenant and $2 itself, by the index. */
const isOfSubject = `hashtextextended(subject, hashtextextended(tenant_id, 0)) = hashtextextended($2::text, hashtextextended($1::text, 0))
  and tenant_id = $1 and subject = $2`

/** Beyond what a timer of another process may be late. */
const marginMs = 250

/** Whoever was cut off after its last commit may have been so lately: what it began is waited out. */
const recentlySeconds = 60

/**
 * Replaces the payloads of a subject's events by a tombstone. In transactions of 500 events; one that was cut off is gone
 * on with by the next call, as only events that are not erased are looked for. Two calls at once wait for each other's rows,
 * locked in the order of the ids, and count each event once.
 */
export async function eraseSubject(database: Database, given: EraseOptions): Promise<Erased> {
  const { tenantId, subject, by, reason } = checkErase(given)
  const { rows } = await database.query<{ id: string; recent: boolean }>(
    `insert into bus.erasures (tenant_id, subject, erased_by, reason) values ($1, $2, $3, $4)
     returning id, exists (
       select 1 from bus.events e
       where ${isOfSubject} and e.erased_at > clock_timestamp() - make_interval(secs => ${recentlySeconds})) as recent`,
    [tenantId, subject, by, reason ?? null],
  )
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
  // Last, so that it also finds what an attempt that had begun before has left.
  const failureCount = await scrubFailures(database, tenantId, subject)
  await database.query(
    'update bus.erasures set failure_count = $2, finished_at = clock_timestamp() where id = $1',
    [id, failureCount],
  )
  return { id, eventCount, failureCount }
}

/** Erases some events, unless somebody else has meanwhile, and counts them. */
async function eraseBatch(database: Database, erasureId: string, ids: readonly string[]): Promise<number> {
  const { rows } = await database.query<{ count: string }>(
    'select bus.erase_events($1, $2::uuid[]) as count',
    [erasureId, ids],
  )
  return Number(rows[0]?.count ?? 0)
}

/**
 * Empties the records of failed attempts at erased events: an error may quote its event. pg-boss has no index for it: its
 * tables are read once, those of one subscription in a statement, because a statement over all would lock every one with its indexes.
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
      if (tenantId !== undefined) assertText('tenantId', tenantId, 255)
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
  assertText('tenantId', tenantId, 255)
  assertText('subject', subject, 1024)
  assertText('by', by, 255)
  if (reason !== undefined) assertText('reason', reason, 1024)
  return { tenantId, subject, by, reason }
}

/** The text itself is not shown: a subject may be a person. */
function assertText(name: string, value: unknown, maxLength: number): void {
  const problem =
    typeof value !== 'string'
      ? `got ${describe(value)}`
      : value.length === 0 || isLonger(value, maxLength)
        ? `got ${characterCount(value)} characters`
        : textProblem(value)
  if (problem !== undefined)
    throw invalidOption(`Expected \`${name}\` to be a text of 1 to ${maxLength} characters: ${problem}`)
}
