import type { Database } from '../database/database.ts'
import { refuseUnknownSubscription } from '../delivery/registry/find-subscription.ts'
import { limits } from '../foundation/limits.ts'
import {
  assertObject,
  assertTextOption,
  integerOption,
  refuseUnknownKeys,
  textOption,
  spanOption,
} from '../foundation/options.ts'
import type {
  ActiveRow,
  BlockedKeyRow,
  DeadByErrorRow,
  DepthRow,
  EventByKeyRow,
  InstanceRow,
  LagRow,
  LatencyRow,
  RecentFailureRow,
  RetriesRow,
  ScheduledRow,
  StorageRow,
  SubscriptionStateRow,
  TenantRow,
  ThroughputRow,
} from './query-rows.ts'

/** How many rows to read. */
export interface RowLimit {
  /** 1 to 10,000. Most views have at most 1,000 rows. @defaultValue `1000` */
  readonly limit?: number | undefined
}

/** Which subscription to read; all of them if none is given. */
export interface QueryFilter extends RowLimit {
  readonly subscription?: string | undefined
}

/** Which minutes to read. */
export interface MinuteFilter extends QueryFilter {
  /** Minutes that begin at this time or later. @defaultValue an hour ago */
  readonly from?: Date | undefined
  /** Minutes that begin before this time. @defaultValue now */
  readonly to?: Date | undefined
}

/** The name of an event, and whose it is. */
export interface KeyFilter extends RowLimit {
  readonly key: string
  /** With a tenant, correlation ids and subjects are looked up too. */
  readonly tenantId?: string | undefined
}

/**
 * What dashboards ask: the rows of the views `bus.v_…`, for which docs/guide/dashboards.md has the SQL. Reads all tenants, so the role needs
 * the rights of `bus_operator`. Counts stop at a cap; `isPartial` says so.
 *
 * Each method rejects with a {@link ConfigurationError} `BUS_INVALID_OPTION`, or `BUS_SUBSCRIPTION_NOT_FOUND` for a name that no subscription
 * has or had when it was removed; or with a {@link DatabaseError}.
 */
export interface Queries {
  /** What waits, runs and is dead, by subscription, in jobs and in events. */
  depth: (filter?: QueryFilter) => Promise<DepthRow[]>
  /** How far behind each subscription is. */
  lag: (filter?: QueryFilter) => Promise<LagRow[]>
  /** Counts of each minute, latest first. They come from `bus.rollups`, and are ten seconds old. */
  throughput: (filter?: MinuteFilter) => Promise<ThroughputRow[]>
  /** How long events waited and handlers ran in each minute, latest first. */
  latency: (filter?: MinuteFilter) => Promise<LatencyRow[]>
  /** Dead letters by error, most frequent first. */
  deadByError: (filter?: QueryFilter) => Promise<DeadByErrorRow[]>
  /** Events that wait for another attempt, by attempts made and error. */
  retries: (filter?: QueryFilter) => Promise<RetriesRow[]>
  /** The jobs that run, longest first. */
  active: (filter?: QueryFilter) => Promise<ActiveRow[]>
  /** The processes of the bus. */
  instances: (filter?: RowLimit) => Promise<InstanceRow[]>
  /** The subscriptions, and whether they are paused or served. */
  subscriptionState: (filter?: QueryFilter) => Promise<SubscriptionStateRow[]>
  /** Who publishes and who waits, most waiting events first. */
  tenants: (filter?: RowLimit) => Promise<TenantRow[]>
  /** The keys that wait, longest first. */
  blockedKeys: (filter?: QueryFilter) => Promise<BlockedKeyRow[]>
  /** The scheduled events that are due next. */
  scheduled: (filter?: RowLimit) => Promise<ScheduledRow[]>
  /** Tables and partitions: sizes, rows, vacuum. */
  storage: (filter?: RowLimit) => Promise<StorageRow[]>
  /** The latest failed attempts, newest first. */
  recentFailures: (filter?: QueryFilter) => Promise<RecentFailureRow[]>
  /** The events that a business id or another name stands for, newest first. */
  eventsByKey: (filter: KeyFilter) => Promise<EventByKeyRow[]>
}

/** A checked filter. */
interface Checked {
  readonly subscription: string | null
  readonly limit: number
}

export function createQueries(database: Pick<Database, 'query'>): Queries {
  async function read<Row>(text: string, values: readonly unknown[]): Promise<Row[]> {
    const { rows } = await database.query(text, [...values])
    return rows.map((row) => toRow<Row>(row))
  }

  /** A method that reads a function of subscription and number of rows. */
  const reading =
    <Row>(name: string, text: string) =>
    async (filter: QueryFilter = {}): Promise<Row[]> => {
      const { subscription, limit } = checkFilter(filter, ['subscription', 'limit'], name)
      const rows = await read<Row>(text, [subscription, limit])
      if (rows.length === 0) await refuseUnknownSubscription(database, subscription)
      return rows
    }

  const listing =
    <Row>(name: string, text: string) =>
    async (filter: RowLimit = {}): Promise<Row[]> =>
      read<Row>(text, [checkFilter(filter, ['limit'], name).limit])

  const ofMinutes =
    <Row>(name: string, columns: string, view: string) =>
    async (filter: MinuteFilter = {}): Promise<Row[]> => {
      const { subscription, limit } = checkFilter(filter, ['subscription', 'limit', 'from', 'to'], name)
      const { from, to } = spanOption(filter)
      const rows = await read<Row>(
        `select ${columns} from ${view}
         where time >= coalesce($3::timestamptz, now() - interval '1 hour') and time < coalesce($4::timestamptz, now())
           and ($1::text is null or subscription = $1)
         order by time desc, subscription, metric limit $2`,
        [subscription, limit, from ?? null, to ?? null],
      )
      if (rows.length === 0) await refuseUnknownSubscription(database, subscription)
      return rows
    }

  return {
    depth: reading('depth', 'select * from bus.read_depth($1) limit $2'),
    lag: reading('lag', 'select * from bus.read_lag($1) limit $2'),
    throughput: ofMinutes(
      'throughput',
      'time, subscription, metric, value::float8 as value',
      'bus.v_throughput',
    ),
    latency: ofMinutes(
      'latency',
      'time, subscription, metric, event_count::float8 as event_count, p50_ms, p95_ms, p99_ms, bins::float8[] as bins',
      'bus.v_latency',
    ),
    deadByError: reading('deadByError', 'select * from bus.read_dead_by_error($1, $2)'),
    retries: reading('retries', 'select * from bus.read_retries($1, $2)'),
    active: reading('active', 'select * from bus.read_active($1, $2)'),
    instances: listing('instances', 'select * from bus.v_instances limit $1'),
    subscriptionState: reading(
      'subscriptionState',
      'select * from bus.v_subscription_state where $1::text is null or subscription = $1 limit $2',
    ),
    tenants: listing('tenants', 'select * from bus.read_tenants($1)'),
    blockedKeys: reading('blockedKeys', 'select * from bus.read_blocked_keys($1, $2)'),
    scheduled: listing('scheduled', 'select * from bus.read_scheduled($1)'),
    storage: listing(
      'storage',
      `select name, parent, queue, range_from, range_to, estimated_rows::float8 as estimated_rows, total_bytes::float8 as total_bytes,
         index_bytes::float8 as index_bytes, dead_rows::float8 as dead_rows, last_vacuum_at, last_analyze_at, frozen_xid_age, default_rows
       from bus.v_storage limit $1`,
    ),
    recentFailures: reading('recentFailures', 'select * from bus.read_recent_failures($1, $2)'),
    async eventsByKey(filter) {
      const { limit } = checkFilter(filter, ['key', 'tenantId', 'limit'], 'eventsByKey')
      const key = textOption('key', filter.key, { max: limits.subjectLength })
      const { tenantId } = filter
      if (tenantId !== undefined) assertTextOption('tenantId', tenantId, { max: limits.keyLength })
      return read<EventByKeyRow>('select * from bus.read_events_by_key($1, $2, $3)', [
        key,
        tenantId ?? null,
        limit,
      ])
    },
  }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
function checkFilter(filter: QueryFilter, known: readonly string[], name: string): Checked {
  assertObject(`a filter like { ${known.join(', ')} }`, filter)
  refuseUnknownKeys(filter, known, `queries.${name}`)
  const { subscription, limit } = filter
  if (subscription !== undefined)
    assertTextOption('subscription', subscription, { max: limits.subscriptionNameLength })
  return {
    subscription: subscription ?? null,
    limit: integerOption('limit', limit, limits.queryLimit),
  }
}

/** A row with the names of TypeScript, and `undefined` for null. */
function toRow<Row>(row: Readonly<Record<string, unknown>>): Row {
  const named = Object.entries(row).map(([name, value]) => [
    name.replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()),
    value ?? undefined,
  ])
  return Object.fromEntries(named) as Row
}
