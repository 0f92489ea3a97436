import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import type { StoredFilter } from '../../delivery/operator/dead-letter-filter.ts'
import { redriveLetters, type RedrivableLetter } from '../../delivery/operator/redrive-letters.ts'
import { hasQueue } from '../../delivery/jobs/dead-letter-jobs.ts'
import { loadSubscriptions } from '../../delivery/registry/registry.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import type { Recorder } from '../../telemetry/recorder.ts'
import type { OperationPart } from '../operation-runner.ts'
import type { RunningOperation } from '../operation.ts'
import { judgeProbes, type Probe } from './probes.ts'
import { readSlice, type Cursor } from './slice.ts'

/** How soon the probes are looked at again. */
const probePauseMs = 500
const maxProbePauseMs = 10_000

/** Where a redrive goes on. */
interface Progress extends Cursor {
  /** The dead letters that were redriven first, alone, while it is not known what becomes of them. */
  readonly probes?: readonly Probe[]
  /** How often they were looked at. */
  readonly lookCount?: number
  /** Whether probes are not needed any more. */
  readonly isProven?: boolean
}

/**
 * Redrives dead letters, a slice in each part. The first ones go alone: unless one of them is delivered, the redrive stops. Nothing is counted
 * twice: what became a dead letter again has another time, after the operation began.
 */
export function createRedrivePart(
  database: Database,
  logger: BusLogger,
  recorder: Pick<Recorder, 'redriven'>,
): OperationPart {
  return async (client, operation, maxCount) => {
    const progress = operation.progress as Progress
    const { probes } = progress
    if (probes !== undefined) {
      const verdict = await judgeProbes(client, probes)
      if (verdict === 'pending') {
        const lookCount = (progress.lookCount ?? 0) + 1
        const waitMs = Math.min(maxProbePauseMs, probePauseMs * lookCount)
        return {
          progress: { ...progress, lookCount },
          counts: {},
          handledCount: 0,
          next: { state: 'running', waitMs },
        }
      }
      const { probes: _, lookCount: __, ...rest } = progress
      // The next ones are probes instead.
      if (verdict === 'removed')
        return { progress: rest, counts: {}, handledCount: 0, next: { state: 'running' } }
      if (verdict !== 'succeeded')
        return {
          // The next ones are probes again, should a person resume it.
          progress: rest,
          counts: { probesFailed: probes.length },
          handledCount: 0,
          next: { state: 'stopped', reason: verdict.reason },
        }
      return {
        progress: { ...rest, isProven: true },
        counts: {},
        handledCount: 0,
        next: { state: 'running' },
      }
    }
    const probeCount = Number(operation.options['probe'] ?? 0)
    const probing = progress.isProven !== true && probeCount > 0
    const slice = await redriveSlice(
      { client, database, logger },
      operation,
      progress,
      probing ? Math.min(probeCount, maxCount) : maxCount,
    )
    const onCommitted = (): void => {
      for (const [name, count] of slice.redriven) recorder.redriven(name, count)
    }
    const next = { ...progress, ...slice.cursor }
    if (slice.isLast) {
      const reason = await emptyReason(client, operation, slice.counts)
      return { ...slice, progress: next, next: { state: 'done', reason }, onCommitted }
    }
    const found = probing && slice.probes.length > 0
    return {
      ...slice,
      onCommitted,
      progress: found ? { ...next, probes: slice.probes } : next,
      next: { state: 'running', waitMs: found ? probePauseMs : 0 },
    }
  }
}

const whatBecame = [
  ['skipped', 'were dead letters no more: delivered, discarded, or redriven by somebody else'],
  ['noSubscription', 'belong to a subscription that was removed'],
  ['noQueue', 'belong to a subscription that has no queue'],
  ['notInLog', 'are not in the log any more'],
] as const

/** Why a redrive ends without having redriven anything. */
async function emptyReason(
  client: pg.ClientBase,
  { counts, subscription_ids: ids }: RunningOperation,
  added: Readonly<Record<string, number>>,
): Promise<string | undefined> {
  const total = (name: string): number => (counts[name] ?? 0) + (added[name] ?? 0)
  // Of a selection that was empty from the start there is nothing to say.
  if (ids.length === 0 || total('redriven') > 0) return undefined
  const reasons = whatBecame.flatMap(([name, text]) => (total(name) === 0 ? [] : [`${total(name)} ${text}`]))
  const { rows } = await client.query<{ name: string }>(
    'select name from bus.removed_subscriptions where id = any($1) order by name',
    [ids],
  )
  if (rows.length > 0)
    reasons.push(
      `the subscription was removed meanwhile, and its dead letters with it: ${rows
        .map(({ name }) => `\`${name}\``)
        .slice(0, 3)
        .join(', ')}`,
    )
  else if (reasons.length === 0) reasons.push('none of them is a dead letter any more')
  return `None was redriven: ${reasons.join('; ')}`
}

interface RedrivenSlice {
  readonly cursor: Cursor
  readonly isLast: boolean
  readonly counts: Readonly<Record<string, number>>
  readonly handledCount: number
  readonly probes: readonly Probe[]
  /** How many, by subscription. */
  readonly redriven: ReadonlyMap<string, number>
}

async function redriveSlice(
  transaction: { readonly client: pg.PoolClient; readonly database: Database; readonly logger: BusLogger },
  operation: RunningOperation,
  { afterTime, afterEvent, afterSubscription }: Progress,
  maxCount: number,
): Promise<RedrivenSlice> {
  const { client, database } = transaction
  const filter = operation.options['filter'] as StoredFilter
  const slice = await readSlice(client, filter, { afterTime, afterEvent, afterSubscription }, maxCount)
  const subscriptions = new Map((await loadSubscriptions(client)).map((each) => [each.id, each]))
  const counts: Record<string, number> = {}
  const count = (what: string, n: number): void => {
    if (n > 0) counts[what] = (counts[what] ?? 0) + n
  }
  const probes: Probe[] = []
  const redrivenCounts = new Map<string, number>()
  for (const [id, letters] of slice.bySubscription) {
    const subscription = subscriptions.get(id)
    if (subscription === undefined) {
      count('noSubscription', letters.length)
      continue
    }
    if (!(await hasQueue(client, database, subscription.name))) {
      count('noQueue', letters.length)
      continue
    }
    const redrivable: RedrivableLetter[] = letters.flatMap((letter) => {
      const event = slice.events.get(letter.eventId)
      return event === undefined ? [] : [{ ...letter, event }]
    })
    count('notInLog', letters.length - redrivable.length)
    const redriven = await redriveLetters(transaction, subscription, redrivable)
    count('redriven', redriven.length)
    if (redriven.length > 0) redrivenCounts.set(subscription.name, redriven.length)
    count('skipped', redrivable.length - redriven.length)
    for (const { eventId, attempts, state, event } of redriven) {
      const isAppended = state === 'dead' && subscription.ordered === true && event.orderingKey !== undefined
      probes.push({ subscriptionId: id, eventId, attempts: isAppended ? 0 : attempts })
    }
  }
  return {
    cursor: slice.cursor,
    isLast: slice.isLast,
    counts,
    handledCount: counts['redriven'] ?? 0,
    probes,
    redriven: redrivenCounts,
  }
}
