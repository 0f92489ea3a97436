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
  /** What was enqueued for each subscription and is over there, by the id that stands for it in the ledger. */
  readonly byTarget?: Readonly<Record<string, TargetCounts>>
}

interface TargetCounts {
  readonly enqueued: number
  readonly ended: number
}

interface Target {
  readonly route: Route
  readonly replay: ReplayOfJob
  readonly queue: BackgroundQueue
}

/** The subscriptions of a replay. */
interface Targets {
  readonly open: readonly Target[]
  /** Those that were removed since it began: what was enqueued for them is gone. */
  readonly removed: readonly { readonly name: string; readonly ledgerId: number }[]
}

/**
 * A part of a replay: decides about the next events of its selection, and inserts the jobs of those that are replayed, in the background of
 * the queues. When all are inserted it waits until they are over, so that the counts of an operation that is done are final. A subscription
 * that was removed is left out, and said at the end.
 */
export function createReplayPart(database: Database, logger: BusLogger): OperationPart {
  return async (client, operation, maxCount) => {
    const targets = await openTargets(client, database, logger, operation)
    const ended = await collectOutcomes(client, targets)
    const { cursor, isRead = false, byTarget = {} } = operation.progress as Progress
    const known = addTo(byTarget, 'ended', ended.byTarget)
    if (isRead || targets.open.length === 0) return endOf(operation, targets, known, ended.counts)
    if (await isAnyFull(targets.open))
      return {
        progress: { ...operation.progress, byTarget: known },
        counts: ended.counts,
        handledCount: 0,
        next: { state: 'running', waitMs: fullPauseMs },
      }
    const selection = operation.selection as unknown as { readonly stored: StoredSelection }
    const page = await readPage(
      client,
      selection.stored,
      cursor ?? (await firstCursor(client, selection.stored)),
      maxCount,
    )
    const inOutbox = await findInOutbox(client, page.events)
    const counts: Record<string, number> = { ...ended.counts, selected: page.events.length }
    const enqueued: Record<string, number> = {}
    for (const { route, replay, queue } of targets.open) {
      const { replayed, counts: standing } = await findStanding(
        client,
        database,
        route,
        page.events,
        inOutbox,
      )
      await queue.insert(replayed, replay)
      const count = replayed.reduce((sum, { events }) => sum + events.length, 0)
      enqueued[replay.ledgerId] = count
      add(counts, 'enqueued', count)
      add(counts, 'skippedWaiting', standing.waitingCount)
      add(counts, 'skippedDead', standing.deadCount)
      add(counts, 'filtered', standing.filteredCount)
    }
    return {
      progress: {
        cursor: page.cursor,
        isRead: page.isLast,
        byTarget: addTo(known, 'enqueued', enqueued),
      },
      counts,
      handledCount: sumOf(Object.values(enqueued)),
      next: { state: 'running' },
    }
  }
}

async function openTargets(
  client: pg.ClientBase,
  database: Database,
  logger: BusLogger,
  { id }: RunningOperation,
): Promise<Targets> {
  const subscriptions = new Map((await loadSubscriptions(client)).map((each) => [each.id, each]))
  const { rows } = await client.query<{ id: number; subscription_id: number; removed_name: string | null }>(
    `select r.id, r.subscription_id, x.name as removed_name
     from bus.replays r left join bus.removed_subscriptions x on x.id = r.subscription_id
     where r.operation_id = $1 order by r.id desc`,
    [id],
  )
  const open: Target[] = []
  const removed: { name: string; ledgerId: number }[] = []
  for (const row of rows) {
    const subscription = subscriptions.get(row.subscription_id)
    if (subscription === undefined)
      removed.push({ name: row.removed_name ?? String(row.subscription_id), ledgerId: row.id })
    else
      open.push({
        route: toRoute(subscription),
        replay: { operationId: id, ledgerId: row.id },
        queue: openBackgroundQueue(client, database, logger, subscription),
      })
  }
  return { open, removed }
}

/** The slowest subscription decides: all of them get the events of a part together. */
async function isAnyFull(targets: readonly Target[]): Promise<boolean> {
  for (const { queue, replay } of targets)
    if ((await queue.countWaiting(replay)) >= queue.maxWaiting) return true
  return false
}

const outcomeNames = ['delivered', 'expired', 'dead'] as const

/** Takes what settlements have counted since the last part: by outcome, and by subscription. */
async function collectOutcomes(
  client: pg.ClientBase,
  { open, removed }: Targets,
): Promise<{ readonly counts: Record<string, number>; readonly byTarget: Record<string, number> }> {
  const { rows } = await client.query<Record<(typeof outcomeNames)[number] | 'id', string>>(
    `with taken as (delete from bus.replay_outcomes where replay_id = any ($1::int[]) returning *)
     select replay_id as id, sum(delivered) as delivered, sum(expired) as expired, sum(dead) as dead from taken group by replay_id`,
    [[...open.map(({ replay }) => replay.ledgerId), ...removed.map(({ ledgerId }) => ledgerId)]],
  )
  const counts: Record<string, number> = {}
  const byTarget: Record<string, number> = {}
  for (const row of rows)
    for (const name of outcomeNames) {
      add(counts, name, Number(row[name]))
      add(byTarget, row.id, Number(row[name]))
    }
  return { counts, byTarget }
}

function endOf(
  { progress, counts }: RunningOperation,
  { open, removed }: Targets,
  byTarget: Readonly<Record<string, TargetCounts>>,
  ended: Readonly<Record<string, number>>,
): PartResult {
  const total = (name: string): number => (counts[name] ?? 0) + (ended[name] ?? 0)
  const leftOf = (ledgerId: number): number => {
    const { enqueued = 0, ended: over = 0 } = byTarget[ledgerId] ?? {}
    return Math.max(0, enqueued - over)
  }
  const isOver =
    removed.length === 0
      ? sumOf(outcomeNames.map(total)) >= total('enqueued')
      : open.every(({ replay }) => leftOf(replay.ledgerId) === 0)
  if (isOver) {
    const dropped = sumOf(removed.map(({ ledgerId }) => leftOf(ledgerId)))
    return {
      progress: { ...progress, byTarget },
      counts: dropped === 0 ? ended : { ...ended, dropped },
      handledCount: 0,
      next: { state: 'done', reason: reasonOfRemoved(removed, open.length === 0) },
    }
  }
  const { endPollCount = 0 } = progress as Progress
  const waitMs = Math.min(lastEndPollMs, firstEndPollMs * 2 ** Math.min(endPollCount, 10))
  return {
    progress: { ...progress, byTarget, endPollCount: endPollCount + 1 },
    counts: ended,
    handledCount: 0,
    next: { state: 'running', waitMs },
  }
}

function reasonOfRemoved(removed: Targets['removed'], isAll: boolean): string | undefined {
  if (removed.length === 0) return undefined
  const names = removed.map(({ name }) => `\`${name}\``).join(', ')
  const what = removed.length === 1 ? `The subscription ${names} was` : `The subscriptions ${names} were`
  return isAll
    ? `${what} removed: nobody is left who gets the events`
    : `${what} removed: the others have got the events`
}

function addTo(
  known: Readonly<Record<string, TargetCounts>>,
  what: keyof TargetCounts,
  added: Readonly<Record<string, number>>,
): Record<string, TargetCounts> {
  const sums: Record<string, TargetCounts> = { ...known }
  for (const [id, count] of Object.entries(added)) {
    const before = sums[id] ?? { enqueued: 0, ended: 0 }
    sums[id] = { ...before, [what]: before[what] + count }
  }
  return sums
}

function sumOf(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0)
}

function add(counts: Record<string, number>, name: string, count: number): void {
  if (count > 0) counts[name] = (counts[name] ?? 0) + count
}
