import { limits } from '../foundation/limits.ts'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
  textOption,
  timeOption,
} from '../foundation/options.ts'

/** What the figures are grouped by: a unit of time in UTC, the subscription, or the tenant. */
export type StatsGrouping = 'minute' | 'hour' | 'day' | 'subscription' | 'tenant'

/** Which figures to read. */
export interface StatsOptions {
  /** From here, rounded down to a whole unit. @defaultValue an hour, a day or 30 days before `to` */
  readonly from?: Date | undefined
  /** Up to here, not included; rounded up to a whole unit. @defaultValue now */
  readonly to?: Date | undefined
  /** @defaultValue `'hour'` */
  readonly by?: StatsGrouping | undefined
  /** Only of this subscription, or of one that had this name when it was removed. Not together with `tenantId`. */
  readonly subscription?: string | undefined
  /** Only of this tenant, by hour or day: counts without times. */
  readonly tenantId?: string | undefined
  /** The most subscriptions or tenants, those with the most events first: 1 to 1,000. @defaultValue `100` */
  readonly limit?: number | undefined
}

const groupings: readonly StatsGrouping[] = ['minute', 'hour', 'day', 'subscription', 'tenant']

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs

/** What each grouping is counted in, how far it reaches back unless told, and how far at most. */
const spans = {
  minute: { unitMs: minuteMs, defaultMs: hourMs, maxMs: dayMs },
  hour: { unitMs: hourMs, defaultMs: dayMs, maxMs: 60 * dayMs },
  day: { unitMs: dayMs, defaultMs: 30 * dayMs, maxMs: 400 * dayMs },
  subscription: { unitMs: hourMs, defaultMs: dayMs, maxMs: 60 * dayMs },
  tenant: { unitMs: hourMs, defaultMs: dayMs, maxMs: 60 * dayMs },
} as const

/** Options with every default applied. */
export interface CheckedStats {
  readonly from: Date
  readonly to: Date
  readonly by: StatsGrouping
  readonly subscription: string | undefined
  readonly tenantId: string | undefined
  readonly limit: number
}

/** @throws a ConfigurationError `BUS_INVALID_OPTION` */
export function checkStats(options: StatsOptions): CheckedStats {
  assertObject('options like { from, to, by }', options)
  refuseUnknownKeys(options, ['from', 'to', 'by', 'subscription', 'tenantId', 'limit'], 'stats')
  const { by = 'hour' } = options
  if (!groupings.includes(by))
    throw invalidOption(`Expected \`by\` to be one of ${groupings.join(', ')}, got ${describe(by)}`, 'by')
  const subscription =
    options.subscription === undefined
      ? undefined
      : textOption('subscription', options.subscription, { max: limits.subscriptionNameLength })
  const tenantId =
    options.tenantId === undefined
      ? undefined
      : textOption('tenantId', options.tenantId, { max: limits.keyLength })
  if (tenantId !== undefined && (subscription !== undefined || by === 'minute' || by === 'subscription'))
    throw invalidOption(
      'Expected `tenantId` with `by` hour, day or tenant and without `subscription`: tenants are counted by hour, over all subscriptions',
      'tenantId',
    )
  if (by === 'tenant' && subscription !== undefined)
    throw invalidOption(
      'Expected `by: "tenant"` without `subscription`: tenants are counted over all subscriptions',
      'by',
    )
  const { unitMs, defaultMs, maxMs } = spans[by]
  const to = options.to === undefined ? Date.now() : timeOption('to', options.to).getTime()
  const from = options.from === undefined ? to - defaultMs : timeOption('from', options.from).getTime()
  const [begin, end] = [Math.floor(from / unitMs) * unitMs, Math.ceil(to / unitMs) * unitMs]
  if (begin >= end) throw invalidOption('Expected `from` to be before `to`', 'from')
  if (end - begin > maxMs + 2 * unitMs)
    throw invalidOption(
      `Expected \`from\` and \`to\` to be at most ${maxMs / hourMs} hours apart with \`by: "${by}"\`: the answer would have too many points`,
      'from',
    )
  return {
    from: new Date(begin),
    to: new Date(end),
    by,
    subscription,
    tenantId,
    limit: integerOption('limit', options.limit, limits.listLimit),
  }
}
