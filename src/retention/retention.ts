import { checkActor } from '../audit/audit.ts'
import { tryWithLock } from '../database/advisory-lock.ts'
import { isLockTimeout } from '../database/database-errors.ts'
import type { Database, Executor } from '../database/database.ts'
import { locks } from '../database/locks.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import { ConfigurationError } from '../foundation/errors.ts'
import type { BusLogger } from '../foundation/logger.ts'
import {
  assertObject,
  booleanOption,
  describe,
  invalidOption,
  refuseUnknownKeys,
} from '../foundation/options.ts'
import { readArchives, type Archive, type ArchiveFilter } from './archive/archives.ts'
import { pendingErasures, rewriteErased, type PendingErasure } from './archive/rewrite-archive.ts'
import { declarePolicy, readPolicy, type RetentionOptions } from './policy.ts'
import { countPrunable } from './prune-rows.ts'
import { readHolds, readRanges, readRetentionState, type RetentionState } from './retention-state.ts'
import { runRound, type RangeOutcome, type RetentionReport } from './round.ts'

/** Options of `bus.prune`. */
export interface PruneOptions {
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
  /** Only says what would go, and what holds it back. @defaultValue `false` */
  readonly dryRun?: boolean | undefined
}

/** Options of `bus.retention.setPartitionSpan`. */
export interface PartitionSpanOptions {
  readonly span: 'month' | 'day'
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
}

/** What is kept how long, and what was archived. */
export interface Retention {
  /** What goes next, what holds it back, and how the last round went. @throws a {@link DatabaseError} */
  state: () => Promise<RetentionState>
  /**
   * From the beginning of the next month on, the log and the ledger get a partition for each day, or for each month. For all processes;
   * what has rows stays as it is. Resolves to when it begins, and to undefined if it is so already.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError} `BUS_DATABASE_ERROR`, retryable, if the log stays in use
   */
  setPartitionSpan: (options: PartitionSpanOptions) => Promise<Date | undefined>
  /** What was archived, latest first. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError} */
  archives: (filter?: ArchiveFilter) => Promise<Archive[]>
  /** Files of archives that hold events of subjects that were erased afterwards, and are still to be rewritten, oldest first, up to 1,000. */
  pendingErasures: () => Promise<PendingErasure[]>
  /**
   * Rewrites these files with tombstones, through the option `retention.archive`. Retention does it by itself once an hour. Resolves to the
   * names of the files.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` without that option
   */
  rewriteArchives: () => Promise<readonly string[]>
}

/** Runs retention while a process runs. */
export interface RetentionTimer {
  /** Resolves when the step under way has ended. */
  stop: () => Promise<void>
}

export interface RetentionParts {
  readonly database: Database
  readonly logger: BusLogger
  readonly service: string
  readonly options: RetentionOptions
}

/** How often a process looks whether there is something to do, and how soon after its start. */
const intervalMs = 60 * 60_000
const firstMs = 60_000

/** A process without an archive leaves out a round that another one has just done. */
const recently = '50 minutes'

/** The calls of the public face. */
export function createRetention({ database, logger, service, options }: RetentionParts): {
  readonly retention: Retention
  readonly prune: (options: PruneOptions) => Promise<RetentionReport>
} {
  const { archive } = options
  return {
    async prune(given) {
      assertObject('options like { by, dryRun }', given)
      refuseUnknownKeys(given, ['by', 'reason', 'dryRun'], 'prune')
      const actor = checkActor(given)
      if (booleanOption('dryRun', given.dryRun, false)) return plan(database, service, options)
      await declarePolicy(database, service, options)
      return alone(database, async () =>
        runRound({ database, logger, service, archive, isStopping: () => false }, actor),
      )
    },
    retention: {
      state: async () => readRetentionState(database),
      async setPartitionSpan(given) {
        assertObject('options like { span, by }', given)
        refuseUnknownKeys(given, ['span', 'by', 'reason'], 'setPartitionSpan')
        const { span } = given
        if (span !== 'month' && span !== 'day')
          throw invalidOption(`Expected \`span\` to be "month" or "day", got ${describe(span)}`, 'span')
        const { by, reason } = checkActor(given)
        return setPartitionSpan(database, [span, by, reason ?? null])
      },
      archives: async (filter) => readArchives(database, filter),
      pendingErasures: async () => pendingErasures(database),
      async rewriteArchives() {
        if (archive === undefined)
          throw invalidOption('Expected the option `retention.archive`: it says where the archives are')
        return alone(database, async () => rewriteErased(database, archive))
      },
    },
  }
}

/** Two at once would overwrite each other's files. @throws a {@link ConfigurationError} `BUS_RETENTION_RUNNING` */
async function alone<T>(database: Database, work: () => Promise<T>): Promise<T> {
  const done = await tryWithLock(database, locks.retention, work)
  if (done !== undefined) return done.result
  throw new ConfigurationError(
    'BUS_RETENTION_RUNNING',
    'A round of retention is running at the moment: call it again later',
    { retryable: true },
  )
}

/** What a round would do with the options of this bus, which it may not have recorded yet. Leaves nothing behind. */
async function plan(
  database: Database,
  service: string,
  options: RetentionOptions,
): Promise<RetentionReport> {
  const undone = new Error('a dry run is rolled back')
  let report: RetentionReport | undefined
  await database
    .transaction(async (client) => {
      await declarePolicy(client, service, options)
      report = await planRound(client)
      throw undone
    })
    .catch((error: unknown) => {
      if (report === undefined) throw error
    })
  if (report === undefined) throw undone
  return report
}

async function planRound(database: Executor): Promise<RetentionReport> {
  const policy = await readPolicy(database)
  const ranges: RangeOutcome[] = []
  for (const range of await readRanges(database)) {
    if (!range.isDue) continue
    const { holds } = await readHolds(database, range, policy)
    ranges.push({ range, outcome: holds.length > 0 ? 'held' : 'due', holds })
  }
  return { ranges, deleted: await countPrunable(database, policy), rewrittenFiles: [] }
}

const maxSpanTries = 60

async function setPartitionSpan(database: Database, values: unknown[]): Promise<Date | undefined> {
  for (let tries = 1; ; tries += 1) {
    try {
      const { rows } = await database.query<{ at: Date | null }>(
        'select bus.set_partition_span($1, $2, $3) as at',
        values,
      )
      await database.query('select bus.create_partitions()')
      return rows[0]?.at ?? undefined
    } catch (error) {
      if (tries === maxSpanTries || !isLockTimeout(error)) throw error
      await database.pause(40 + Math.random() * 120)
    }
  }
}

/** Records the policy of a service, and goes through everything once an hour, one process at a time. */
export function startRetention(parts: RetentionParts): RetentionTimer {
  const { database, logger, service, options } = parts
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let isStopped = false

  function schedule(delayMs: number): void {
    if (isStopped) return
    // Randomised, so that processes that were started together do not all ask at once.
    timer = setTimeout(
      () => {
        running = pass().finally(() => {
          running = undefined
          schedule(intervalMs)
        })
      },
      delayMs * (0.75 + Math.random() / 2),
    )
    timer.unref()
  }

  async function pass(): Promise<void> {
    try {
      // Again each time: a program of the same service may have been started without these options.
      await declarePolicy(database, service, options)
      if (options.archive === undefined && (await wasJustDone(database))) return
      await tryWithLock(database, locks.retention, async () =>
        runRound(
          { database, logger, service, archive: options.archive, isStopping: () => isStopped },
          { by: service },
        ),
      )
    } catch (error) {
      if (!isStopped) logger.warn({ reason: reasonOf(error) }, 'retention failed, trying again in an hour')
    }
  }

  running = declarePolicy(database, service, options)
    .catch((error: unknown) => {
      logger.warn({ reason: reasonOf(error) }, 'the retention policy could not be recorded, trying again')
    })
    .finally(() => {
      running = undefined
      schedule(firstMs)
    })

  return {
    async stop() {
      isStopped = true
      clearTimeout(timer)
      await running
    },
  }
}

async function wasJustDone(database: Database): Promise<boolean> {
  const { rows } = await database.query<{ done: boolean }>(
    `select coalesce(round_ended_at > now() - interval '${recently}' and error is null, false) as done from bus.retention_state`,
  )
  return rows[0]?.done === true
}
