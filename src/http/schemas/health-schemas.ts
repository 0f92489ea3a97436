import type { BusHealth } from '../../bus-health.ts'
import type { CanaryResult } from '../../health/canary-result.ts'
import type { SubscriptionHealth } from '../../health/delivery-health.ts'
import { findingCodes, type Finding } from '../../health/finding.ts'
import type { OutboxState } from '../../health/outbox-state.ts'
import type { BusStats, Percentiles, StatsFigures, StatsPoint } from '../../operations/stats.ts'
import type { DefaultPartition } from '../../outbox/schema/partitions.ts'
import type { DeliveryStats, TenantStats } from '../../tenancy/tenant.ts'
import {
  anyObject,
  choice,
  flag,
  integer,
  list,
  number,
  objectOf,
  optional,
  ref,
  text,
  time,
  uuid,
  type PropertiesOf,
} from './schema.ts'

const figures: PropertiesOf<StatsFigures> = {
  publishedCount: optional(integer()),
  deliveredCount: integer('Events times subscriptions.'),
  failedAttemptCount: integer(),
  deadCount: integer(),
  expiredCount: integer(),
  failureRate: number('Failed attempts, as a share of all attempts.'),
  retryRate: number(),
  deadLetterRate: number(),
  waitMs: optional(ref('Percentiles')),
  runMs: optional(ref('Percentiles')),
}

/** Schemas of health and statistics. */
export const healthSchemas = {
  Finding: objectOf<Finding>({
    code: choice(...findingCodes),
    severity: choice('error', 'warning', 'info'),
    message: text(),
    remedy: text(),
    data: anyObject('The figures and names.'),
  }),
  Canary: objectOf<CanaryResult>({
    ok: flag(),
    eventId: uuid(),
    service: text(),
    isScheduled: flag(),
    publishedAt: time(),
    failedStep: optional(choice('relay', 'worker', 'receipt')),
    steps: objectOf<CanaryResult['steps']>({
      relayMs: optional(number()),
      queueMs: optional(number()),
      handlerMs: optional(number()),
      receiptMs: optional(number()),
    }),
    totalMs: optional(number()),
  }),
  Health: objectOf<BusHealth>({
    ok: flag(),
    live: flag('Whether the loops of the process make progress.'),
    ready: flag(),
    state: choice('created', 'starting', 'started', 'stopping', 'stopped'),
    database: choice('up', 'down'),
    relay: choice('stopped', 'awake', 'sleeping', 'standby', 'polling', 'failing'),
    listening: flag(),
    overrunningHandlerCount: integer(),
    failedTryPublishCount: integer(),
    defaultPartition: optional(
      objectOf<DefaultPartition>({ eventCount: integer(), deliveryCount: integer(), advice: text() }),
    ),
    unservedSubscriptions: list(text()),
    findings: list(ref('Finding')),
    canary: optional(ref('Canary')),
    subscriptions: optional(
      list(
        objectOf<SubscriptionHealth>({
          name: text(),
          state: choice('active', 'behind', 'paused', 'circuit open', 'unserved'),
          lagSeconds: optional(number()),
          lagLimitSeconds: optional(number()),
        }),
        'Only with `full`.',
      ),
    ),
    outbox: optional(objectOf<OutboxState>({ lagSeconds: number(), depth: integer() }, 'Only with `full`.')),
  }),
  Percentiles: objectOf<Percentiles>({ p50: number(), p95: number(), p99: number() }, 'In milliseconds.'),
  StatsFigures: objectOf<StatsFigures>(figures),
  StatsPoint: objectOf<StatsPoint>({
    ...figures,
    at: optional(time('The beginning of the unit.')),
    subscription: optional(text()),
    tenantId: optional(text()),
  }),
  Stats: objectOf<BusStats>({
    from: time(),
    to: time(),
    by: choice('minute', 'hour', 'day', 'subscription', 'tenant'),
    total: ref('StatsFigures'),
    points: list(ref('StatsPoint')),
    isPartial: flag(),
  }),
  TenantStats: objectOf<TenantStats>({
    eventCount: integer(),
    types: list(objectOf<TenantStats['types'][number]>({ type: text(), count: integer() })),
    deliveries: list(
      objectOf<DeliveryStats>({
        subscription: text(),
        deliveredCount: integer(),
        expiredCount: integer(),
        waitingCount: integer(),
        deadCount: integer(),
      }),
    ),
  }),
} as const
