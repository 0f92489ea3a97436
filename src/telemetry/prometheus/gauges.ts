import { bounds } from './bounds.ts'
import { boundedValues } from './bounded-series.ts'
import { labelNames } from './names.ts'
import { toLabelValue, type Family, type Labels } from './text-format.ts'

/** Something that is read when metrics are asked for. */
interface Gauge {
  readonly name: string
  readonly help: string
  readonly kind?: 'counter'
  readonly labels: readonly GaugeLabel[]
  /** How values of subscriptions or tenants beyond the bound become one. */
  readonly merge?: 'sum' | 'max'
}

type GaugeLabel =
  | 'subscription'
  | 'receiver'
  | 'tenant'
  | 'service'
  | 'version'
  | 'node'
  | 'code'
  | 'severity'
  | 'table'
  | 'section'

/** Values of these labels beyond a bound are one value, `_OTHER`. */
const bounded: Readonly<Partial<Record<GaugeLabel, number>>> = {
  subscription: bounds.subscriptions,
  receiver: bounds.subscriptions,
  service: bounds.services,
  version: bounds.versions,
}

const ofSubscription = ['subscription'] as const

/** In the order in which they are written, by the section that reads them: see sections/. */
export const gauges = {
  // This process.
  buildInfo: {
    name: 'bossbus_build_info',
    help: 'Always 1. The labels say which version of bossbus and of Node runs in which service.',
    labels: ['version', 'service', 'node'],
  },
  listenUp: {
    name: 'bossbus_listen_up',
    help: 'Whether notifications of the database arrive in this process. Not there if it delivers no events.',
    labels: [],
  },
  relayLeader: {
    name: 'bossbus_relay_leader',
    help: 'Whether the relay of this process acts on notifications first. One process of all does.',
    labels: [],
  },
  relayFailing: {
    name: 'bossbus_relay_failing',
    help: 'Whether the relay of this process cannot dispatch events at the moment.',
    labels: [],
  },
  loopLate: {
    name: 'bossbus_loop_late_seconds',
    help: 'How late the latest loop of this process is with its next round. 0 if all are in time.',
    labels: [],
  },
  overrunning: {
    name: 'bossbus_handlers_overrunning',
    help: 'Handlers of this process that run on although their attempts have ended.',
    labels: [],
  },
  tryPublishFailed: {
    name: 'bossbus_try_publish_failed_total',
    help: 'Calls of tryPublish in this process that could not publish.',
    kind: 'counter',
    labels: [],
  },
  sectionUp: {
    name: 'bossbus_metrics_section_up',
    help: 'Whether a section of the metrics could be read from the database. If not, its metrics are not there.',
    labels: ['section'],
  },
  sectionAge: {
    name: 'bossbus_metrics_section_age_seconds',
    help: 'How long ago a section was read.',
    labels: ['section'],
  },
  sectionDuration: {
    name: 'bossbus_metrics_section_duration_seconds',
    help: 'How long reading a section took.',
    labels: ['section'],
  },

  // health
  databaseUp: {
    name: 'bossbus_database_up',
    help: 'Whether the database answers this process.',
    labels: [],
  },
  finding: {
    name: 'bossbus_finding',
    help: 'Whether bus.health() of this process has this finding.',
    labels: ['code', 'severity'],
  },
  canaryDuration: {
    name: 'bossbus_canary_duration_seconds',
    help: 'How long the last test event took from its publish to its receipt. Not there without one.',
    labels: [],
  },

  // subscriptions
  paused: {
    name: 'bossbus_paused',
    help: 'Whether a person has paused the subscription.',
    labels: ofSubscription,
    merge: 'sum',
  },
  breakerOpen: {
    name: 'bossbus_breaker_open',
    help: 'Whether the circuit breaker of the subscription is open.',
    labels: ofSubscription,
    merge: 'sum',
  },
  unserved: {
    name: 'bossbus_unserved',
    help: 'Whether no process runs the subscription.',
    labels: ofSubscription,
    merge: 'sum',
  },
  instances: {
    name: 'bossbus_instances',
    help: 'Processes whose heartbeat is current.',
    labels: ['service', 'version'],
    merge: 'sum',
  },
  instancesLost: {
    name: 'bossbus_instances_lost',
    help: 'Processes that have stopped their heartbeat without a stop.',
    labels: [],
  },
  operationsStopped: {
    name: 'bossbus_operations_stopped',
    help: 'Redrives, replays and removals that have stopped by themselves, counted up to 100.',
    labels: [],
  },

  // depth
  ready: {
    name: 'bossbus_ready',
    help: 'Events that may run now.',
    labels: ofSubscription,
    merge: 'sum',
  },
  active: {
    name: 'bossbus_active',
    help: 'Events that run.',
    labels: ofSubscription,
    merge: 'sum',
  },
  retrying: {
    name: 'bossbus_retrying',
    help: 'Events that failed, and whose next attempt is not due yet.',
    labels: ofSubscription,
    merge: 'sum',
  },
  deferred: {
    name: 'bossbus_deferred',
    help: 'Events that wait for a time though nothing failed, such as for the limit of their tenant.',
    labels: ofSubscription,
    merge: 'sum',
  },
  pausedEvents: {
    name: 'bossbus_paused_events',
    help: 'Events that would be ready if the subscription were not paused.',
    labels: ofSubscription,
    merge: 'sum',
  },
  behindKeys: {
    name: 'bossbus_behind_keys',
    help: 'Events that wait behind one of their ordering key that failed, or is parked.',
    labels: ofSubscription,
    merge: 'sum',
  },
  deadLetters: {
    name: 'bossbus_dead_letters',
    help: 'Dead letters that nobody has redriven or discarded.',
    labels: ofSubscription,
    merge: 'sum',
  },
  undispatched: {
    name: 'bossbus_undispatched',
    help: 'Events in the outbox that a relay may dispatch now.',
    labels: [],
  },
  scheduled: {
    name: 'bossbus_scheduled',
    help: 'Events that were published with a time that is not there yet.',
    labels: [],
  },
  partial: {
    name: 'bossbus_depth_partial',
    help: 'Whether a count of the subscription has reached its cap: there are at least as many.',
    labels: ofSubscription,
    merge: 'max',
  },

  // lag
  lag: {
    name: 'bossbus_lag_seconds',
    help: 'For how long the first event has been due that may run now. 0 if none waits, and while paused.',
    labels: ofSubscription,
    merge: 'max',
  },
  pausedLag: {
    name: 'bossbus_paused_lag_seconds',
    help: 'The same of a subscription that is paused.',
    labels: ofSubscription,
    merge: 'max',
  },
  relayLag: {
    name: 'bossbus_relay_lag_seconds',
    help: 'For how long the first event of the outbox has waited that may be dispatched. 0 if none waits.',
    labels: [],
  },

  // keys
  blockedKeys: {
    name: 'bossbus_blocked_keys',
    help: 'Ordering keys that wait for a person, or for a handler that ignores its signal, counted up to 10,000.',
    labels: ofSubscription,
    merge: 'sum',
  },

  // quarantine
  quarantined: {
    name: 'bossbus_quarantined_messages',
    help: 'Messages of other systems that could not become events and wait for a person, counted up to 10,000.',
    labels: ['receiver'],
    merge: 'sum',
  },

  // partitions
  partitionHorizon: {
    name: 'bossbus_partition_horizon_seconds',
    help: 'How far ahead a table has partitions. Below 0, its rows go to the default partition.',
    labels: ['table'],
  },
  defaultRows: {
    name: 'bossbus_default_partition_rows',
    help: 'Rows of the log and of the ledger in default partitions, counted up to 10,000. It should be 0.',
    labels: ['table'],
  },

  // server
  oldestTransaction: {
    name: 'bossbus_oldest_transaction_age_seconds',
    help: 'How long the oldest transaction of this database has been open. 0 if there is none.',
    labels: [],
  },
  oldestPrepared: {
    name: 'bossbus_oldest_prepared_transaction_age_seconds',
    help: 'The same of prepared transactions.',
    labels: [],
  },
  slotBytes: {
    name: 'bossbus_replication_slot_retained_bytes',
    help: 'Write-ahead log that the server keeps for a replication slot that nobody reads. 0 if there is none.',
    labels: [],
  },

  // tenants, with the option `metrics.tenants`
  tenantWaiting: {
    name: 'bossbus_tenant_waiting',
    help: 'Events of a tenant that wait, of some thousand that were counted. Those with the most have series of their own.',
    labels: ['tenant'],
    merge: 'sum',
  },
  tenantRetrying: {
    name: 'bossbus_tenant_retrying',
    help: 'Events of a tenant that failed, and wait for another attempt, counted in the same way.',
    labels: ['tenant'],
    merge: 'sum',
  },
  tenantDead: {
    name: 'bossbus_tenant_dead_letters',
    help: 'Dead letters of a tenant, counted in the same way.',
    labels: ['tenant'],
    merge: 'sum',
  },
} as const satisfies Readonly<Record<string, Gauge>>

/** A value of a gauge. */
export interface Reading {
  readonly gauge: keyof typeof gauges
  readonly labels?: Readonly<Partial<Record<GaugeLabel, string>>> | undefined
  readonly value: number
}

/** The families of some readings. Those with the same labels, or beyond the bound of a label, become one value. */
export function toFamilies(readings: readonly Reading[]): readonly Family[] {
  const byGauge = Map.groupBy(readings, ({ gauge }) => gauge)
  return Object.entries<Gauge>(gauges).map(([key, { name, help, kind, merge = 'sum' }]) => {
    const own = byGauge.get(key as Reading['gauge']) ?? []
    return { name, help, kind: kind ?? 'gauge', samples: merged(own, merge) }
  })
}

function merged(readings: readonly Reading[], merge: 'sum' | 'max'): Family['samples'] {
  const limit = Object.fromEntries(
    Object.entries(bounded).map(([label, maxCount]) => [label, boundedValues(maxCount)]),
  )
  const samples = new Map<string, { readonly labels: Labels; value: number }>()
  for (const { labels: given = {}, value } of readings) {
    const labels = Object.fromEntries(
      Object.entries(given).map(([label, text]) => [labelName(label), (limit[label] ?? toLabelValue)(text)]),
    )
    const key = JSON.stringify(labels)
    const known = samples.get(key)
    if (known === undefined) samples.set(key, { labels, value })
    else known.value = merge === 'sum' ? known.value + value : Math.max(known.value, value)
  }
  return [...samples.values()]
}

function labelName(label: string): string {
  return label === 'subscription' ? labelNames.subscription : label
}
