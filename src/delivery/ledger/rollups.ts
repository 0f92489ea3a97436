import type { Database } from '../../database/database.ts'
import type { EventOutcome } from '../attempts/outcome.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { createTenantCounts } from './tenant-counts.ts'

/** How often the counts of the running minute are written. A crash loses at most as much of them. */
const flushIntervalMs = 10_000

/** How often the counts of tenants are written, because there may be a thousand of them. */
const tenantFlushIntervalMs = 60_000

/** Two for each doubling, from one millisecond to four and a half hours. */
export const binCount = 48

/** What a process did in one minute, for one subscription; subscription 0 is the relay. */
interface Counts {
  published: number
  delivered: number
  failed: number
  dead: number
  expired: number
  readonly waitBins: number[]
  readonly runBins: number[]
}

/**
 * Counts what this process does, by minute and subscription, and writes it to `bus.rollups`. Each process has rows of its own, so none is
 * updated by two. These are statistics: what a failed write leaves out is lost.
 */
export interface Rollups {
  /** Counts events that the relay has dispatched. */
  published: (events: readonly { readonly tenantId: string }[]) => void
  /**
   * Counts what became of an event.
   * @param waitMs - how long it waited for its handler, if this was its first attempt
   */
  handled: (
    subscriptionId: number,
    outcome: EventOutcome,
    waitMs: number | undefined,
    tenantId: string | undefined,
  ) => void
  /** Counts events that have become dead letters. */
  dead: (subscriptionId: number, letters: readonly { readonly tenantId?: string | undefined }[]) => void
  start: () => void
  /** Writes what is counted. */
  stop: () => Promise<void>
}

export function createRollups(
  database: Pick<Database, 'query'>,
  instanceId: string,
  logger: BusLogger,
  now: () => number = Date.now,
): Rollups {
  const minutes = new Map<number, Map<number, Counts>>()
  const tenants = createTenantCounts(database, now)
  let tenantsFlushedAt = performance.now()
  let timer: NodeJS.Timeout | undefined
  let flushing: Promise<void> = Promise.resolve()

  function countsOf(subscriptionId: number): Counts {
    const minute = Math.floor(now() / 60_000)
    let all = minutes.get(minute)
    if (all === undefined) minutes.set(minute, (all = new Map<number, Counts>()))
    let counts = all.get(subscriptionId)
    if (counts === undefined) all.set(subscriptionId, (counts = noCounts()))
    return counts
  }

  /** Rows are written whole, so a repeated write is harmless; those of past minutes are written once more, then forgotten. */
  async function flush(): Promise<void> {
    const minute = Math.floor(now() / 60_000)
    const rows = [...minutes].flatMap(([at, all]) =>
      [...all].map(([subscriptionId, counts]) => ({ minute: at * 60, subscriptionId, ...counts })),
    )
    for (const at of minutes.keys()) if (at < minute) minutes.delete(at)
    if (rows.length === 0) return
    await database.query(
      `insert into bus.rollups (minute, subscription_id, instance_id, published, delivered, failed, dead, expired, wait_bins, run_bins)
       select to_timestamp(r.minute), r."subscriptionId", $2, r.published, r.delivered, r.failed, r.dead, r.expired, r."waitBins", r."runBins"
       from jsonb_to_recordset($1::jsonb) as r (minute float8, "subscriptionId" int, published int, delivered int, failed int, dead int, expired int, "waitBins" int[], "runBins" int[])
       on conflict (minute, subscription_id, instance_id) do update set published = excluded.published, delivered = excluded.delivered,
         failed = excluded.failed, dead = excluded.dead, expired = excluded.expired, wait_bins = excluded.wait_bins, run_bins = excluded.run_bins`,
      [JSON.stringify(rows), instanceId],
    )
  }

  async function flushTenants(isLast: boolean): Promise<void> {
    if (!isLast && performance.now() - tenantsFlushedAt < tenantFlushIntervalMs) return
    tenantsFlushedAt = performance.now()
    await tenants.flush()
  }

  /** The counts of tenants are written also where those of subscriptions cannot be. */
  function flushNow(isLast: boolean): Promise<void> {
    flushing = flushing
      .then(flush)
      .catch(reportFailure)
      .then(async () => flushTenants(isLast))
      .catch(reportFailure)
    return flushing
  }

  function reportFailure(error: unknown): void {
    logger.warn({ reason: reasonOf(error) }, 'the counts of the last seconds could not be written')
  }

  return {
    published(events) {
      countsOf(0).published += events.length
      for (const { tenantId } of events) tenants.add(tenantId, 'published')
    },
    handled(subscriptionId, outcome, waitMs, tenantId) {
      tenants.add(tenantId, count(countsOf(subscriptionId), outcome, waitMs))
    },
    dead(subscriptionId, letters) {
      if (letters.length > 0) countsOf(subscriptionId).dead += letters.length
      for (const { tenantId } of letters) tenants.add(tenantId, 'dead')
    },
    start() {
      timer = setInterval(() => void flushNow(false), flushIntervalMs)
      timer.unref()
    },
    async stop() {
      clearInterval(timer)
      await flushNow(true)
    },
  }
}

function noCounts(): Counts {
  return { published: 0, delivered: 0, failed: 0, dead: 0, expired: 0, waitBins: [], runBins: [] }
}

/** Counts an outcome, and returns what it counts as. */
function count(
  counts: Counts,
  outcome: EventOutcome,
  waitMs: number | undefined,
): 'delivered' | 'failed' | 'expired' {
  const isExpired = outcome.delivered && (outcome.expired ?? outcome.erased) === true
  const what = isExpired ? 'expired' : outcome.delivered ? 'delivered' : 'failed'
  counts[what] += 1
  if (isExpired) return what
  if (outcome.durationMs !== undefined) addTo(counts.runBins, outcome.durationMs)
  if (waitMs !== undefined) addTo(counts.waitBins, waitMs)
  return what
}

/** Counts nothing: for the canary, which says nothing about a service. */
export const noRollups: Rollups = {
  published() {},
  handled() {},
  dead() {},
  start() {},
  async stop() {},
}

function addTo(bins: number[], ms: number): void {
  const bin = binOf(ms)
  while (bins.length <= bin) bins.push(0)
  bins[bin] = (bins[bin] ?? 0) + 1
}

/** The bin of a duration: bin n begins at 2^(n/2) milliseconds, and bin 0 has everything shorter too. */
export function binOf(ms: number): number {
  return ms < 1 ? 0 : Math.min(binCount - 1, Math.floor(2 * Math.log2(ms)))
}
