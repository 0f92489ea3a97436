import type pg from 'pg'
import { finishAudit } from '../audit/audit.ts'
import type { Database } from '../database/database.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import type { BusLogger } from '../foundation/logger.ts'
import { failureDelayMs } from '../foundation/retry-delay.ts'
import type { OperationKind, OperationState, RunningOperation } from './operation.ts'

/** What a part of an operation has done. */
export interface PartResult {
  /** Where the next part goes on. */
  readonly progress: object
  /** What this part adds to the counts of the operation. */
  readonly counts: Readonly<Record<string, number>>
  /** Events that count against the rate. */
  readonly handledCount: number
  /** Whether there is more to do, and no earlier than when. `stopped`: it would do harm to go on. A reason is shown with the state. */
  readonly next:
    | { readonly state: 'running'; readonly waitMs?: number }
    | { readonly state: 'done'; readonly reason?: string | undefined }
    | { readonly state: 'stopped'; readonly reason: string }
  /** Called once all of it is committed. Does not throw. */
  readonly onCommitted?: (() => void) | undefined
}

/**
 * Does the next part of an operation, of at most so many events, in the transaction that locks its row. Nothing else may change the
 * operation meanwhile, and what it writes commits together with its progress.
 */
export type OperationPart = (
  client: pg.PoolClient,
  operation: RunningOperation,
  maxCount: number,
) => Promise<PartResult>

/** Does the parts of operations while this process runs. */
export interface OperationRunner {
  /** There may be something to do. */
  wake: () => void
  /** Resolves when the part under way has ended. */
  stop: () => Promise<void>
}

export interface OperationRunnerParts {
  readonly database: Database
  readonly logger: BusLogger
  readonly parts: Readonly<Partial<Record<OperationKind, OperationPart>>>
}

/** Events in one part: its transaction takes some tenths of a second. */
const maxPartCount = 500

/** A part that has failed this often in a row is not tried again: it would never end by itself. About ten minutes. */
const maxErrorCount = 15

/** How soon this process looks again while another process is doing a part. */
const lockedPauseMs = 1000

/**
 * Does the parts of running operations one after the other. Any number of processes may: a part locks the row of its operation with
 * SKIP LOCKED. It sleeps while nothing runs, until it is woken: by a notification, or by the heartbeat of this process.
 */
export function startOperationRunner({ database, logger, parts }: OperationRunnerParts): OperationRunner {
  const kinds = Object.keys(parts)
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let isWoken = false
  let isStopped = false
  let failures = 0

  function schedule(delayMs: number): void {
    if (isStopped) return
    clearTimeout(timer)
    timer = setTimeout(() => {
      running ??= pass().finally(() => {
        running = undefined
        if (isWoken) schedule(0)
      })
    }, delayMs)
    timer.unref()
  }

  async function pass(): Promise<void> {
    isWoken = false
    try {
      for (;;) {
        const dueMs = isStopped ? undefined : await runPart()
        failures = 0
        if (dueMs === undefined) return
        if (dueMs > 0) {
          schedule(dueMs)
          return
        }
      }
    } catch (error) {
      const delayMs = failureDelayMs(failures)
      failures += 1
      if (!isStopped)
        logger.warn({ reason: reasonOf(error), delayMs }, 'operations could not be continued, retrying')
      schedule(delayMs)
    }
  }

  /** Does one part if one is due. Returns in how many milliseconds the next is due; undefined if no operation runs. */
  async function runPart(): Promise<number | undefined> {
    let operation: RunningOperation | undefined
    let thrown: unknown
    let onCommitted = (): void => {}
    try {
      await database.transaction(async (client) => {
        const { rows } = await client.query<RunningOperation>(
          `select id, kind, actor, reason, selection, options, subscription_ids, rate, counts, progress
           from bus.operations
           where state = 'running' and next_part_at <= now() and kind = any ($1)
           order by next_part_at limit 1 for update skip locked`,
          [kinds],
        )
        operation = rows[0]
        if (operation === undefined) return
        await database.faultPoint?.('operation.locked')
        const part = parts[operation.kind]
        if (part === undefined) return
        const result = await part(client, operation, partCountOf(operation)).catch((error: unknown) => {
          thrown = error
          throw error
        })
        await database.faultPoint?.('operation.part-written')
        const reportEnd = await writeResult(client, operation, result)
        onCommitted = () => {
          result.onCommitted?.()
          reportEnd()
        }
      })
      onCommitted()
      if (operation !== undefined) await database.faultPoint?.('operation.part-committed')
    } catch (error) {
      if (operation === undefined) throw error
      await recordError(operation, thrown ?? error)
    }
    return nextDueMs(operation === undefined)
  }

  /** Returns what says that the operation has ended, if it has: to be called once that is committed. */
  async function writeResult(
    client: pg.PoolClient,
    operation: RunningOperation,
    { progress, counts, handledCount, next }: PartResult,
  ): Promise<() => void> {
    const total = addCounts(operation.counts, counts)
    const reason = next.state === 'running' ? undefined : next.reason
    const waitMs = Math.max(
      next.state === 'running' ? (next.waitMs ?? 0) : 0,
      operation.rate === null ? 0 : (handledCount / operation.rate) * 1000,
    )
    await client.query(
      `update bus.operations
       set progress = $2, counts = $3, state = $4, state_reason = coalesce($5, state_reason), error = null, error_count = 0,
         next_part_at = clock_timestamp() + $6 * interval '1 millisecond', updated_at = clock_timestamp(),
         finished_at = case when $4 = 'done' then clock_timestamp() end
       where id = $1`,
      [operation.id, JSON.stringify(progress), JSON.stringify(total), next.state, reason ?? null, waitMs],
    )
    const { state } = next
    if (state === 'running') return () => {}
    if (state === 'done') await finishAudit(client, operation.id, { state, counts: total, reason })
    return () => report(operation, state, total, reason)
  }

  /** The part has rolled back, and is tried again. A database that does not answer is not the operation's fault. */
  async function recordError(operation: RunningOperation, thrown: unknown): Promise<void> {
    const { id, kind, counts } = operation
    const reason = reasonOf(thrown)
    const { rows } = await database.query<{ state: OperationState }>(
      `update bus.operations
       set error = left($2, 2000), error_count = error_count + 1, updated_at = clock_timestamp(),
         next_part_at = clock_timestamp() + least(60, 2 ^ error_count) * interval '1 second',
         state = case when error_count + 1 >= ${maxErrorCount} then 'stopped' else state end,
         state_reason = case when error_count + 1 >= ${maxErrorCount} then left($2, 2000) else state_reason end
       where id = $1 and state = 'running' returning state`,
      [id, reason],
    )
    if (rows[0]?.state === 'stopped') report(operation, 'stopped', counts, reason)
    else logger.warn({ operationId: id, kind, reason }, 'a part of an operation failed, retrying')
  }

  async function nextDueMs(isIdle: boolean): Promise<number | undefined> {
    const { rows } = await database.query<{ due_ms: number | null }>(
      `select (extract(epoch from min(next_part_at) - clock_timestamp()) * 1000)::float8 as due_ms
       from bus.operations where state = 'running' and kind = any ($1)`,
      [kinds],
    )
    const dueMs = rows[0]?.due_ms
    if (dueMs === null || dueMs === undefined) return undefined
    if (dueMs > 0) return Math.ceil(dueMs)
    return isIdle ? lockedPauseMs : 0
  }

  function report(
    { id, kind }: RunningOperation,
    state: OperationState,
    counts: Readonly<Record<string, number>>,
    reason: string | undefined,
  ): void {
    const fields = { operationId: id, kind, ...counts }
    const withReason = reason === undefined ? fields : { ...fields, reason }
    if (state === 'stopped') logger.error(withReason, 'an operation has stopped: a person must decide')
    else logger.info(withReason, 'an operation is done')
  }

  schedule(0)

  return {
    wake() {
      isWoken = true
      if (running === undefined) schedule(0)
    },
    async stop() {
      isStopped = true
      clearTimeout(timer)
      await running
    },
  }
}

/** A part of a rated operation takes half a second of its rate, so that its events spread over time. */
function partCountOf({ rate }: RunningOperation): number {
  return rate === null ? maxPartCount : Math.min(maxPartCount, Math.max(1, Math.ceil(rate / 2)))
}

function addCounts(
  known: Readonly<Record<string, number>>,
  added: Readonly<Record<string, number>>,
): Record<string, number> {
  const total: Record<string, number> = { ...known }
  for (const [name, count] of Object.entries(added)) total[name] = (total[name] ?? 0) + count
  return total
}
