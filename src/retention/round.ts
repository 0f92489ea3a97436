import type { Database } from '../database/database.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import type { BusLogger } from '../foundation/logger.ts'
import type { ArchiveStore } from './archive/archive-store.ts'
import { archivedTables } from './archive/manifest.ts'
import { archiveRange } from './archive/write-archive.ts'
import { rewriteErased } from './archive/rewrite-archive.ts'
import { readPolicy, type RetentionPolicy } from './policy.ts'
import { createPruneRecord, pruneKeys, pruneRows, type PrunedCounts } from './prune-rows.ts'
import { readHolds, readRanges, type LogRange, type PartitionHold } from './retention-state.ts'

/** What became of a range of the log. */
export interface RangeOutcome {
  readonly range: LogRange
  /**
   * `due`: it would go, in a dry run. `held`: something holds it back. `dropped`: it is gone. `busy`: its tables were in use all the time;
   * the next round tries again. `elsewhere`: it has to be archived, and this process has no `archive`. `changed`: rows came while it was
   * archived; the next round archives it again.
   */
  readonly outcome: 'due' | 'held' | 'dropped' | 'busy' | 'elsewhere' | 'changed'
  readonly holds: readonly PartitionHold[]
}

/** What retention has done, or would do. */
export interface RetentionReport {
  /** The ranges that the policy says must go, oldest first. */
  readonly ranges: readonly RangeOutcome[]
  /** Rows deleted; in a dry run, rows that would be, counted up to 10,001. */
  readonly deleted: PrunedCounts
  /** Files of archives that were rewritten because a subject was erased. */
  readonly rewrittenFiles: readonly string[]
}

/** What a round needs. */
export interface RoundParts {
  readonly database: Database
  readonly logger: BusLogger
  readonly service: string
  readonly archive: ArchiveStore | undefined
  /** Whether the process is stopping: then the round ends after the step under way. */
  readonly isStopping: () => boolean
}

/** On whose behalf. */
export interface RoundActor {
  readonly by: string
  readonly reason?: string | undefined
}

/** How long a range whose tables are in use is tried. One call of bus.drop_range tries for two seconds. */
const maxDropCalls = 30

/** Everything that retention does, once. The caller holds the lock of retention. */
export async function runRound(parts: RoundParts, actor: RoundActor): Promise<RetentionReport> {
  const { database, isStopping } = parts
  await database.query('update bus.retention_state set round_began_at = clock_timestamp()')
  try {
    await adoptDefaultPartitions(parts, actor)
    const policy = await readPolicy(database)
    const ranges: RangeOutcome[] = []
    for (const range of await readRanges(database)) {
      if (!range.isDue || isStopping()) continue
      ranges.push(await handleRange(parts, actor, range, policy))
    }
    const record = createPruneRecord(database, actor)
    const deleted = {
      ...(await pruneRows(database, record, isStopping)),
      keys: await pruneKeys(database, record, isStopping),
    }
    await record.finish(deleted)
    const rewrittenFiles =
      parts.archive === undefined || isStopping() ? [] : await rewriteErased(database, parts.archive)
    await database.query('update bus.retention_state set round_ended_at = clock_timestamp(), error = null')
    return { ranges, deleted, rewrittenFiles }
  } catch (error) {
    await database
      .query('update bus.retention_state set round_ended_at = clock_timestamp(), error = $1', [
        reasonOf(error).slice(0, 2000),
      ])
      .catch(() => {})
    throw error
  }
}

async function handleRange(
  parts: RoundParts,
  actor: RoundActor,
  range: LogRange,
  policy: RetentionPolicy,
): Promise<RangeOutcome> {
  const { database, logger, archive, service } = parts
  const { holds, scheduledUntil } = await readHolds(database, range, policy)
  if (holds.length > 0) {
    logger.warn({ range: range.name, holds }, 'a partition is older than the log is kept, and is held back')
    return { range, outcome: 'held', holds }
  }
  const isArchived = policy.archive && policy.logDays !== null && range.ageDays > policy.logDays
  if (isArchived) {
    if (archive === undefined) return { range, outcome: 'elsewhere', holds: [] }
    await archiveRange(database, archive, range, service)
  }
  return dropRange(parts, actor, range, scheduledUntil)
}

interface DropAnswer {
  readonly outcome: 'gone' | 'kept' | 'held' | 'changed' | 'busy' | 'dropped'
  readonly holds?: readonly {
    readonly kind: PartitionHold['kind']
    readonly subscription?: string
    readonly held_count: number
    readonly detail?: string
  }[]
}

/** Drops a range. Its tables may be in use, and then nobody waits for longer than 15 ms at a time: it is tried again. */
async function dropRange(
  { database, logger, isStopping }: RoundParts,
  { by, reason }: RoundActor,
  range: LogRange,
  scheduledUntil: string | undefined,
): Promise<RangeOutcome> {
  for (let call = 1; ; call += 1) {
    const { rows } = await database.query<{ answer: DropAnswer }>(
      'select bus.drop_range($1, $2, $3, $4, $5) as answer',
      [range.lower, range.upper, by, scheduledUntil ?? null, reason ?? null],
    )
    const { outcome = 'gone', holds = [] } = rows[0]?.answer ?? {}
    if (outcome === 'busy' && call < maxDropCalls && !isStopping()) {
      await database.pause(200 + Math.random() * 300)
      continue
    }
    if (outcome === 'dropped' || outcome === 'gone') {
      await database.faultPoint?.('retention.dropped')
      logger.info({ range: range.name, bytes: range.bytes }, 'a partition was dropped')
      return { range, outcome: 'dropped', holds: [] }
    }
    return {
      range,
      outcome: outcome === 'kept' ? 'held' : outcome,
      holds: holds.map(({ kind, subscription, held_count, detail }) => ({
        kind,
        subscription,
        count: held_count,
        detail,
      })),
    }
  }
}

/** Adopting takes a few steps for each table. */
const maxSteps = 40

/** Turns default partitions that have rows into partitions of their own: see bus.adopt_default_partition. */
async function adoptDefaultPartitions({ database, logger }: RoundParts, { by }: RoundActor): Promise<void> {
  for (const parent of archivedTables) {
    for (let step = 1; step <= maxSteps; step += 1) {
      const { rows } = await database.query<{ step: string }>(
        'select bus.adopt_default_partition($1, $2) as step',
        [parent, by],
      )
      const outcome = rows[0]?.step
      if (outcome === 'adopted') {
        await database.faultPoint?.('retention.default-adopted')
        logger.info({ table: parent }, 'the default partition has become a partition of its own')
      }
      if (outcome === 'empty' || outcome === 'mixed') break
      if (outcome === 'busy') await database.pause(40 + Math.random() * 120)
    }
  }
}
