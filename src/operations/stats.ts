import type { Database } from '../database/database.ts'
import { addBins, percentileOf } from '../delivery/ledger/percentiles.ts'
import { refuseUnknownSubscription } from '../delivery/registry/find-subscription.ts'
import { checkStats, type StatsGrouping, type StatsOptions } from './stats-options.ts'
import { readSubscriptions, readTenants, type StatsCounts, type StatsGroup } from './stats-rows.ts'

/** Durations in milliseconds below which half, 95 % and 99 % of them were. From bins: exact to a factor of 1.4. */
export interface Percentiles {
  readonly p50: number
  readonly p95: number
  readonly p99: number
}

/** What happened. */
export interface StatsFigures {
  /** Events that the relay dispatched. Undefined for a subscription, which has no publishers of its own. */
  readonly publishedCount: number | undefined
  /** Deliveries: events times subscriptions. */
  readonly deliveredCount: number
  readonly failedAttemptCount: number
  readonly deadCount: number
  readonly expiredCount: number
  /** Failed attempts, as a share of all attempts: 0 to 1. */
  readonly failureRate: number
  /** Failed attempts that another attempt followed, as a share of all attempts. */
  readonly retryRate: number
  /** Dead letters, as a share of what was settled: delivered, expired or dead. */
  readonly deadLetterRate: number
  /** From the time an event was published or due to the beginning of its first attempt. Undefined if there was none, and for tenants. */
  readonly waitMs: Percentiles | undefined
  /** How long handlers ran. Undefined if none did, and for tenants. */
  readonly runMs: Percentiles | undefined
}

/** The figures of one unit of time, of one subscription, or of one tenant. */
export interface StatsPoint extends StatsFigures {
  /** The beginning of the unit. */
  readonly at: Date | undefined
  /** Its name; of one that was removed, the name that it had. One that was registered again under this name has a point of its own. */
  readonly subscription: string | undefined
  /** Undefined for the tenants together that were too many to be counted one by one. */
  readonly tenantId: string | undefined
}

/** The answer of `bus.stats`. */
export interface BusStats {
  readonly from: Date
  readonly to: Date
  readonly by: StatsGrouping
  /** The whole time, all groups together, also those that `limit` leaves out. */
  readonly total: StatsFigures
  /** By time, ascending, without the units in which nothing happened; otherwise the largest first. */
  readonly points: readonly StatsPoint[]
  /** Whether there are more subscriptions or tenants than `limit`. */
  readonly isPartial: boolean
}

/**
 * Reads counts and times of the past from the rollups: by index, so many rows at most, whatever is in the log.
 *
 * @throws a ConfigurationError `BUS_INVALID_OPTION`, `BUS_SUBSCRIPTION_NOT_FOUND`; a DatabaseError
 */
export async function readStats(
  database: Pick<Database, 'query'>,
  options: StatsOptions = {},
): Promise<BusStats> {
  const checked = checkStats(options)
  const isOfTenants = checked.by === 'tenant' || checked.tenantId !== undefined
  const groups = isOfTenants
    ? await readTenants(database, checked)
    : await readSubscriptions(database, checked)
  if (groups.length === 0) await refuseUnknownSubscription(database, checked.subscription)
  const total = sumOf(groups)
  const isTime = checked.by !== 'subscription' && checked.by !== 'tenant'
  const shown = groups.filter(
    ({ at, subscription, isTenant }) => at !== null || subscription !== null || isTenant,
  )
  const kept = isTime ? shown : shown.toSorted((a, b) => sizeOf(b) - sizeOf(a)).slice(0, checked.limit)
  const hasPublished = checked.subscription === undefined
  return {
    from: checked.from,
    to: checked.to,
    by: checked.by,
    total: figuresOf(total, hasPublished),
    points: kept.map((group) => ({
      at: group.at ?? undefined,
      subscription: group.subscription ?? undefined,
      tenantId: group.tenant === null || group.tenant === '' ? undefined : group.tenant,
      ...figuresOf(group, hasPublished && checked.by !== 'subscription'),
    })),
    isPartial: shown.length > kept.length,
  }
}

function sumOf(groups: readonly StatsGroup[]): StatsCounts {
  const sum: StatsCounts = { published: 0, delivered: 0, failed: 0, dead: 0, expired: 0, waits: [], runs: [] }
  for (const group of groups) {
    for (const what of ['published', 'delivered', 'failed', 'dead', 'expired'] as const)
      sum[what] += group[what]
    addBins(sum.waits, group.waits)
    addBins(sum.runs, group.runs)
  }
  return sum
}

const sizeOf = ({ published, delivered, failed }: StatsGroup): number => published + delivered + failed

function figuresOf(counts: Readonly<StatsCounts>, hasPublished: boolean): StatsFigures {
  const { delivered, failed, dead, expired } = counts
  return {
    publishedCount: hasPublished ? counts.published : undefined,
    deliveredCount: delivered,
    failedAttemptCount: failed,
    deadCount: dead,
    expiredCount: expired,
    failureRate: share(failed, failed + delivered),
    retryRate: share(Math.max(0, failed - dead), failed + delivered),
    deadLetterRate: share(dead, delivered + expired + dead),
    waitMs: percentilesOf(counts.waits),
    runMs: percentilesOf(counts.runs),
  }
}

const share = (part: number, whole: number): number => (whole === 0 ? 0 : part / whole)

function percentilesOf(bins: readonly number[]): Percentiles | undefined {
  const p50 = percentileOf(bins, 0.5)
  if (p50 === undefined) return undefined
  return { p50, p95: percentileOf(bins, 0.95) ?? p50, p99: percentileOf(bins, 0.99) ?? p50 }
}
