import { limits } from '../../foundation/limits.ts'
import { required, textField, timeField } from '../fields.ts'
import { defineRoute, type ApiRoute } from '../route.ts'
import { list, objectOf, ref } from '../schemas/schema.ts'
import { queryLimit as limit, subscription, tenantId } from './filters.ts'

const tag = 'Views'

const rowsOf = (row: string) => objectOf<{ rows: readonly object[] }>({ rows: list(ref(row)) })

const ofSubscription = { subscription, limit } as const
const all = { limit } as const
const minutes = {
  ...ofSubscription,
  from: timeField('Minutes that begin at this time or later. An hour ago unless given.'),
  to: timeField('Minutes that begin before this time.'),
} as const

/** The views of one subscription or of all. */
const bySubscription = [
  ['depth', '/queries/depth', 'DepthRow', 'What waits, runs and is dead.'],
  ['lag', '/queries/lag', 'LagRow', 'How far behind each subscription is.'],
  ['deadByError', '/queries/dead-by-error', 'DeadByErrorRow', 'Dead letters by error, most frequent first.'],
  ['retries', '/queries/retries', 'RetriesRow', 'Events that wait for another attempt.'],
  ['active', '/queries/active', 'ActiveRow', 'The jobs that run, longest first.'],
  [
    'subscriptionState',
    '/queries/subscription-state',
    'SubscriptionStateRow',
    'The subscriptions, and whether they are paused or served.',
  ],
  ['blockedKeys', '/queries/blocked-keys', 'BlockedKeyRow', 'The keys that wait, longest first.'],
  [
    'recentFailures',
    '/queries/recent-failures',
    'RecentFailureRow',
    'The latest failed attempts, newest first.',
  ],
] as const

/** The views of the whole bus. */
const ofAll = [
  ['instances', '/queries/instances', 'InstanceRow', 'The processes of the bus.'],
  ['tenants', '/queries/tenants', 'TenantRow', 'Who publishes and who waits, most waiting events first.'],
  ['scheduled', '/queries/scheduled', 'ScheduledRow', 'The scheduled events that are due next.'],
  ['storage', '/queries/storage', 'StorageRow', 'Tables and partitions: sizes, rows, vacuum.'],
] as const

/** The views of minutes. */
const ofMinutes = [
  ['throughput', '/queries/throughput', 'ThroughputRow', 'Counts of each minute, latest first.'],
  ['latency', '/queries/latency', 'LatencyRow', 'Times of each minute, latest first.'],
] as const

/** `bus.queries`. */
export const queryRoutes: readonly ApiRoute[] = [
  ...bySubscription.map(([name, url, row, summary]) =>
    defineRoute({
      ...{ action: `queries.${name}`, method: 'GET', url, tag, summary },
      query: ofSubscription,
      answer: rowsOf(row),
      errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
      handle: async ({ bus, query }) => ({ rows: await bus.queries[name](query) }),
    }),
  ),
  ...ofAll.map(([name, url, row, summary]) =>
    defineRoute({
      ...{ action: `queries.${name}`, method: 'GET', url, tag, summary },
      query: all,
      answer: rowsOf(row),
      handle: async ({ bus, query }) => ({ rows: await bus.queries[name](query) }),
    }),
  ),
  ...ofMinutes.map(([name, url, row, summary]) =>
    defineRoute({
      ...{ action: `queries.${name}`, method: 'GET', url, tag, summary },
      query: minutes,
      answer: rowsOf(row),
      errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
      handle: async ({ bus, query }) => ({ rows: await bus.queries[name](query) }),
    }),
  ),
  defineRoute({
    ...{ action: 'queries.eventsByKey', method: 'GET', url: '/queries/events-by-key', tag },
    summary: 'The events that a business id or another name stands for, newest first.',
    query: { key: required(textField(undefined, limits.subjectLength)), tenantId, limit },
    answer: rowsOf('EventByKeyRow'),
    handle: async ({ bus, query }) => ({ rows: await bus.queries.eventsByKey(query) }),
  }),
]
