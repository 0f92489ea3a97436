import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import type { ReplayOfJob } from '../../delivery/jobs/job.ts'
import { loadSubscriptions } from '../../delivery/registry/registry.ts'
import { toRoute, type Route } from '../../delivery/routing/match-events.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { RunningOperation } from '../operation.ts'
import type { OperationPart, PartResult } from '../operation-runner.ts'
import { fullPauseMs, openBackgroundQueue, type BackgroundQueue } from './background.ts'
import { firstCursor, readPage, type StoredSelection } from './selection.ts'
import { findInOutbox, findStanding } from './standing.ts'

/** How often is looked whether everything that was inserted is over: soon at first, then rarely. */
const firstEndPollMs = 50
const lastEndPollMs = 1000

interface Progress {
  readonly cursor?: string
  readonly isRead?: boolean
  /** How often was looked whether it is over. */
  readonly endPollCount?: number
}

interface Target {
  readonly route: Route
  readonly replay: ReplayOfJob
  readonly queue: BackgroundQueue
}

/**
 * A part of a replay: decides about the next events of its selection, and inserts the jobs of those that are replayed, in the background of
 * the queues. When all are inserted it waits until they are over, so that the counts of an operation that is done are final.
 */
export function createReplayPart(database: Database, logger: BusLogger): OperationPart {
  return async (client, operation, maxCount) => {
    const targets = await openTargets(client, database, logger, operation)
    const ended = await collectOutcomes(client, targets)
    const { cursor, isRead = false } = operation.progress as Progress
    if (isRead) return endOf(operation, ended)
    if (await isAnyFull(targets)) {
      const next = { state: 'running', waitMs: fullPauseMs } as const
      return { progress: operation.progress, counts: ended, handledCount: 0, next }
    }
    const selection = operation.selection as unknown as { readonly stored: StoredSelection }
    const page = await readPage(
      client,
      selection.stored,
      cursor ?? (await firstCursor(client, selection.stored)),
      maxCount,
    )
    const inOutbox = await findInOutbox(client, page.events)
    const counts: Record<string, number> = { ...ended, selected: page.events.length }
    let enqueuedCount = 0
    for (const { route, replay, queue } of targets) {
      const { replayed, counts: standing } = await findStanding(
        client,
        database,
        route,
        page.events,
        inOutbox,
      )
      await queue.insert(replayed, replay)
      const count = replayed.reduce((sum, { events }) => sum + events.length, 0)
      enqueuedCount += count
      add(counts, 'enqueued', count)
      add(counts, 'skippedWaiting', standing.waitingCount)
      add(counts, 'skippedDead', standing.deadCount)
      add(counts, 'filtered', standing.filteredCount)
    }
    return {
      progress: { cursor: page.cursor, isRead: page.isLast },
      counts,
      handledCount: enqueuedCount,
      next: { state: 'running' },
    }
  }
}

/** The subscriptions that still exist. */
async function openTargets(
  client: pg.ClientBase,
  database: Database,
  logger: BusLogger,
  { id, subscription_ids }: RunningOperation,
): Promise<readonly Target[]> {
  const subscriptions = await loadSubscriptions(client)
  const { rows } = await client.query<{ id: number; subscription_id: number }>(
    'select id, subscription_id from bus.replays where operation_id = $1',
    [id],
  )
  return subscriptions
    .filter((subscription) => subscription_ids.includes(subscription.id))
    .flatMap((subscription) => {
      const row = rows.find(({ subscription_id }) => subscription_id === subscription.id)
      if (row === undefined) return []
      const replay = { operationId: id, ledgerId: row.id }
      const queue = openBackgroundQueue(client, database, logger, subscription)
      return [{ route: toRoute(subscription), replay, queue }]
    })
}

/** The slowest subscription decides: all of them get the events of a part together. */
async function isAnyFull(targets: readonly Target[]): Promise<boolean> {
  for (const { queue, replay } of targets)
    if ((await queue.countWaiting(replay)) >= queue.maxWaiting) return true
  return false
}

/** Takes what settlements have counted since the last part. */
async function collectOutcomes(
  client: pg.ClientBase,
  targets: readonly Target[],
): Promise<Record<string, number>> {
  const { rows } = await client.query<{ delivered: string; expired: string; dead: string }>(
    `with taken as (delete from bus.replay_outcomes where replay_id = any ($1::int[]) returning *)
     select coalesce(sum(delivered), 0) as delivered, coalesce(sum(expired), 0) as expired, coalesce(sum(dead), 0) as dead from taken`,
    [targets.map(({ replay }) => replay.ledgerId)],
  )
  const counts: Record<string, number> = {}
  for (const [name, count] of Object.entries(rows[0] ?? {}))
    if (Number(count) > 0) counts[name] = Number(count)
  return counts
}

function endOf({ progress, counts }: RunningOperation, ended: Readonly<Record<string, number>>): PartResult {
  const total = (name: string): number => (counts[name] ?? 0) + (ended[name] ?? 0)
  const isOver = total('delivered') + total('expired') + total('dead') >= total('enqueued')
  const { endPollCount = 0 } = progress as Progress
  const waitMs = Math.min(lastEndPollMs, firstEndPollMs * 2 ** Math.min(endPollCount, 10))
  return {
    progress: { ...progress, endPollCount: endPollCount + 1 },
    counts: ended,
    handledCount: 0,
    next: isOver ? { state: 'done' } : { state: 'running', waitMs },
  }
}

function add(counts: Record<string, number>, name: string, count: number): void {
  if (count > 0) counts[name] = (counts[name] ?? 0) + count
}
