import type { Database } from '../../database/database.ts'
import { canary } from '../../events/event-type.ts'
import { findingCodes, createFinding, type Finding } from '../../health/finding.ts'
import { readLimited } from '../../health/limited-read.ts'
import { readQuarantined } from '../../health/quarantine-health.ts'
import { readRegistry, isLost, unservedOf } from '../../health/registry-health.ts'
import { readPartitions } from '../../outbox/schema/partitions.ts'
import { otherValue } from './bounded-series.ts'
import type { Reading } from './gauges.ts'
import type { Section } from './sections.ts'

/** More subscriptions than this are not read. */
const maxSubscriptions = 5000

/** Depth and lag take longest, some milliseconds for each subscription, and are needed most when there is much. */
const depthLimitMs = 15_000

/** What `bus.health()` answers, as far as metrics tell it. */
interface Health {
  readonly database: 'up' | 'down'
  readonly findings: readonly Pick<Finding, 'code'>[]
  readonly canary: { readonly totalMs: number | undefined } | undefined
}

export function healthSection(readHealth: () => Promise<Health>): Section {
  return {
    name: 'health',
    async read() {
      const { database, findings, canary: last } = await readHealth()
      const found = new Set(findings.map(({ code }) => code))
      return [
        { gauge: 'databaseUp', value: Number(database === 'up') },
        ...findingCodes.map((code): Reading => {
          const { severity } = createFinding(code, '')
          return { gauge: 'finding', labels: { code, severity }, value: Number(found.has(code)) }
        }),
        ...(last?.totalMs === undefined
          ? []
          : [{ gauge: 'canaryDuration', value: last.totalMs / 1000 } as const]),
      ]
    },
  }
}

/** The sections that are read from the database beside `bus.health()`. */
export function databaseSections(
  database: Database,
  own: { readonly service: string; readonly version: string },
  tenantCount: number,
): readonly Section[] {
  const sections: readonly Section[] = [
    { name: 'subscriptions', read: async () => readSubscriptions(database, own) },
    { name: 'depth', read: async () => readDepth(database) },
    { name: 'lag', read: async () => readLag(database) },
    { name: 'keys', read: async () => readKeys(database) },
    { name: 'quarantine', read: async () => readQuarantine(database) },
    { name: 'partitions', read: async () => readPartitionState(database) },
    { name: 'server', read: async () => readServer(database) },
  ]
  if (tenantCount === 0) return sections
  return [...sections, { name: 'tenants', read: async () => readTenants(database, tenantCount) }]
}

async function readSubscriptions(
  database: Database,
  own: { readonly service: string; readonly version: string },
): Promise<readonly Reading[]> {
  const registry = await readRegistry(database)
  const unserved = new Set(unservedOf(registry))
  const { subscriptions, instances, operations } = registry
  const lost = instances.filter(isLost)
  return [
    ...subscriptions
      .filter(({ name }) => name !== canary.subscription)
      .flatMap(({ name: subscription, pausedAt, circuitOpenedAt }): readonly Reading[] => [
        { gauge: 'paused', labels: { subscription }, value: Number(pausedAt !== null) },
        { gauge: 'breakerOpen', labels: { subscription }, value: Number(circuitOpenedAt !== null) },
        { gauge: 'unserved', labels: { subscription }, value: Number(unserved.has(subscription)) },
      ]),
    { gauge: 'instances', labels: own, value: 0 },
    ...instances
      .filter((instance) => !isLost(instance))
      .map(({ service, version }): Reading => ({
        gauge: 'instances',
        labels: { service, version },
        value: 1,
      })),
    { gauge: 'instancesLost', value: lost.length },
    { gauge: 'operationsStopped', value: operations.length },
  ]
}

interface DepthRow extends Record<string, unknown> {
  readonly subscription: string | null
  readonly ready_events: number
  readonly active_events: number
  readonly retrying_events: number
  readonly deferred_events: number
  readonly paused_events: number
  readonly behind_events: number
  readonly parked_events: number
  readonly dead_events: number
  readonly scheduled_events: number
  readonly is_partial: boolean
}

async function readDepth(database: Database): Promise<readonly Reading[]> {
  const rows = await readLimited<DepthRow>(
    database,
    `select * from bus.read_depth() d order by d.subscription nulls first limit ${maxSubscriptions + 1}`,
    depthLimitMs,
  )
  const total = rows.find(({ subscription }) => subscription === null)
  return [
    ...subscriptionsIn(rows).flatMap((row): readonly Reading[] => {
      const labels = { subscription: row.subscription }
      return [
        { gauge: 'ready', labels, value: row.ready_events },
        { gauge: 'active', labels, value: row.active_events },
        { gauge: 'retrying', labels, value: row.retrying_events },
        { gauge: 'deferred', labels, value: row.deferred_events },
        { gauge: 'pausedEvents', labels, value: row.paused_events },
        { gauge: 'behindKeys', labels, value: row.behind_events + row.parked_events },
        { gauge: 'deadLetters', labels, value: row.dead_events },
        { gauge: 'partial', labels, value: Number(row.is_partial) },
      ]
    }),
    { gauge: 'undispatched', value: total?.ready_events ?? 0 },
    { gauge: 'scheduled', value: total?.scheduled_events ?? 0 },
  ]
}

interface LagRow extends Record<string, unknown> {
  readonly subscription: string | null
  readonly lag_seconds: number
  readonly paused_seconds: number
}

async function readLag(database: Database): Promise<readonly Reading[]> {
  const rows = await readLimited<LagRow>(
    database,
    `select l.subscription, l.lag_seconds, l.paused_seconds from bus.read_lag() l order by l.subscription nulls first limit ${maxSubscriptions + 1}`,
    depthLimitMs,
  )
  const ofRelay = rows.find(({ subscription }) => subscription === null)
  return [
    ...subscriptionsIn(rows).flatMap((row): readonly Reading[] => {
      const labels = { subscription: row.subscription }
      return [
        { gauge: 'lag', labels, value: row.lag_seconds },
        { gauge: 'pausedLag', labels, value: row.paused_seconds },
      ]
    }),
    { gauge: 'relayLag', value: ofRelay?.lag_seconds ?? 0 },
  ]
}

/** The rows of subscriptions, but for the canary's: it says nothing about a service. */
function subscriptionsIn<Row extends { readonly subscription: string | null }>(
  rows: readonly Row[],
): readonly (Row & { readonly subscription: string })[] {
  return rows.filter(
    (row): row is Row & { readonly subscription: string } =>
      row.subscription !== null && row.subscription !== canary.subscription,
  )
}

async function readKeys(database: Database): Promise<readonly Reading[]> {
  const rows = await readLimited<{ subscription: string; count: number }>(
    database,
    `select s.name as subscription, count(k.subscription_id)::int as count
     from bus.subscriptions s
     left join (select k.subscription_id from bus.ordered_keys k where k.failed_at is not null limit 10000) k on k.subscription_id = s.id
     group by 1 order by 1 limit ${maxSubscriptions}`,
  )
  return subscriptionsIn(rows).map(({ subscription, count }): Reading => ({
    gauge: 'blockedKeys',
    labels: { subscription },
    value: count,
  }))
}

async function readQuarantine(database: Database): Promise<readonly Reading[]> {
  return (await readQuarantined(database)).map(({ receiver, count }): Reading => ({
    gauge: 'quarantined',
    labels: { receiver },
    value: count,
  }))
}

async function readPartitionState(database: Database): Promise<readonly Reading[]> {
  const horizons = await readLimited<{ table: string; seconds: number }>(
    database,
    `select t.name as table, (extract(epoch from to_timestamp(max(bus.uuid_ms(p.upper_bound)) / 1000.0) - clock_timestamp()))::float8 as seconds
     from (values ('events'), ('receipts'), ('receipt_batches'), ('attempts')) t (name)
     cross join lateral bus.partitions_of(t.name) p group by 1 order by 1 limit 4`,
  )
  const { defaultPartition } = await readPartitions(database)
  return [
    ...horizons.map(({ table, seconds }): Reading => ({
      gauge: 'partitionHorizon',
      labels: { table },
      value: seconds,
    })),
    { gauge: 'defaultRows', labels: { table: 'events' }, value: defaultPartition?.eventCount ?? 0 },
    { gauge: 'defaultRows', labels: { table: 'ledger' }, value: defaultPartition?.deliveryCount ?? 0 },
  ]
}

/** A role without `pg_read_all_stats` sees the transactions of its own roles only. */
async function readServer(database: Database): Promise<readonly Reading[]> {
  const [row] = await readLimited<{ transaction: number; prepared: number; bytes: number }>(
    database,
    `select
       coalesce((select max(extract(epoch from clock_timestamp() - a.xact_start)) from pg_stat_activity a
         where a.datname = current_database() and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()), 0)::float8 as transaction,
       coalesce((select max(extract(epoch from clock_timestamp() - p.prepared)) from pg_prepared_xacts p
         where p.database = current_database()), 0)::float8 as prepared,
       coalesce((select max(pg_wal_lsn_diff(case when not pg_is_in_recovery() then pg_current_wal_lsn() end, s.restart_lsn))
         from pg_replication_slots s where not s.active and not s.temporary and (s.database is null or s.database = current_database())), 0)::float8 as bytes`,
  )
  return [
    { gauge: 'oldestTransaction', value: Math.max(0, row?.transaction ?? 0) },
    { gauge: 'oldestPrepared', value: Math.max(0, row?.prepared ?? 0) },
    { gauge: 'slotBytes', value: Math.max(0, row?.bytes ?? 0) },
  ]
}

interface TenantRow extends Record<string, unknown> {
  readonly tenant_id: string
  readonly waiting_events: number
  readonly retrying_events: number
  readonly dead_events: number
}

/** @param count - so many tenants have series of their own: those of which most events wait */
async function readTenants(database: Database, count: number): Promise<readonly Reading[]> {
  const rows = await readLimited<TenantRow>(
    database,
    'select t.tenant_id, t.waiting_events, t.retrying_events, t.dead_events from bus.read_tenants(1000) t limit 1000',
    depthLimitMs,
  )
  return rows.flatMap((row, n): readonly Reading[] => {
    const labels = { tenant: n < count ? row.tenant_id : otherValue }
    return [
      { gauge: 'tenantWaiting', labels, value: row.waiting_events },
      { gauge: 'tenantRetrying', labels, value: row.retrying_events },
      { gauge: 'tenantDead', labels, value: row.dead_events },
    ]
  })
}
