import { limits } from '../../foundation/limits.ts'
import { textOption } from '../../foundation/options.ts'
import type { StatsGrouping } from '../../operations/stats-options.ts'
import { choiceField, textField, timeField, uuidField } from '../fields.ts'
import { defineRoute, inTenant, ofTenant, type ApiRoute } from '../route.ts'
import { list, objectOf, optional, ref, uuid } from '../schemas/schema.ts'
import { full, limit, subscription, tenantId } from './filters.ts'

const groupings: readonly StatsGrouping[] = ['minute', 'hour', 'day', 'subscription', 'tenant']

const span = { from: timeField(), to: timeField('Not included.') } as const

/** Health, statistics, retention and records: what there is to read besides events. */
export const stateRoutes: readonly ApiRoute[] = [
  defineRoute({
    ...{ action: 'health', method: 'GET', url: '/health', tag: 'Health' },
    summary: 'The state of the bus in the answering process, in the database and on its server.',
    query: { full },
    answer: ref('Health'),
    handle: async ({ bus, query }) => bus.health(query),
  }),
  defineRoute({
    ...{ action: 'canary.last', method: 'GET', url: '/canary', tag: 'Health' },
    summary: 'The last test event that is over.',
    answer: objectOf<{ canary: object | undefined }>({ canary: optional(ref('Canary')) }),
    handle: async ({ bus }) => ({ canary: (await bus.health()).canary }),
  }),
  defineRoute({
    ...{ action: 'stats', method: 'GET', url: '/stats', tag: 'Statistics' },
    summary: 'Counts and times of the past, by minute, hour, day, subscription or tenant.',
    description: 'Of one tenant there are counts alone, by hour and day and over all subscriptions.',
    query: { ...span, by: choiceField(groupings), subscription, tenantId, limit },
    answer: ref('Stats'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, query }) => bus.stats(query),
    handleForTenant: async ({ bus, tenantId: own, query }) => bus.stats(ofTenant(query, own)),
  }),
  defineRoute({
    ...{ action: 'tenant.stats', method: 'GET', url: '/tenant-stats', tag: 'Statistics' },
    summary: 'The events of one tenant, and their states by subscription. Reads all events of the span.',
    query: {
      ...span,
      tenantId: textField('Required, but for those who belong to a tenant.', limits.keyLength),
    },
    answer: ref('TenantStats'),
    handle: async ({ bus, query: { tenantId: of, ...given } }) =>
      bus.tenant(textOption('tenantId', of, { max: limits.keyLength })).stats(given),
    handleForTenant: async ({ tenant, tenantId: own, query }) => tenant.stats(inTenant(query, own)),
  }),
  defineRoute({
    ...{ action: 'audit.list', method: 'GET', url: '/audit', tag: 'Records' },
    summary: 'A page of changes by people and programs, latest first.',
    query: {
      by: textField(undefined, 255),
      action: textField(undefined, 255),
      subscription,
      eventId: uuidField(),
      operationId: uuidField(),
      after: uuidField('`next` of the page before.'),
      limit,
    },
    answer: objectOf<{ records: readonly object[]; next: string | undefined }>({
      records: list(ref('AuditRecord')),
      next: optional(uuid('Pass it as `after`. Left out on the last page.')),
    }),
    async handle({ bus, query }) {
      const records = await bus.audit.list(query)
      const isFull = records.length === (query.limit ?? limits.listLimit.default)
      return { records, next: isFull ? records.at(-1)?.id : undefined }
    },
  }),
  defineRoute({
    ...{ action: 'erasures.list', method: 'GET', url: '/erasures', tag: 'Records' },
    summary: 'The erasures, latest first.',
    query: { tenantId, limit },
    answer: objectOf<{ erasures: readonly object[] }>({ erasures: list(ref('Erasure')) }),
    handle: async ({ bus, query }) => ({ erasures: await bus.erasures.list(query) }),
  }),
  defineRoute({
    ...{ action: 'catalogue.list', method: 'GET', url: '/catalogue', tag: 'Records' },
    summary: 'The event types that services have declared, each with its versions and schemas.',
    answer: objectOf<{ types: readonly object[] }>({ types: list(ref('DeclaredType')) }),
    handle: async ({ bus }) => ({ types: await bus.catalogue.list() }),
  }),
  defineRoute({
    ...{ action: 'retention.state', method: 'GET', url: '/retention', tag: 'Retention' },
    summary: 'What is kept how long, what goes next, and what holds it back.',
    answer: ref('RetentionState'),
    handle: async ({ bus }) => bus.retention.state(),
  }),
  defineRoute({
    ...{ action: 'retention.archives', method: 'GET', url: '/retention/archives', tag: 'Retention' },
    summary: 'A page of archives, latest first.',
    query: { after: uuidField('`next` of the page before.'), limit },
    answer: objectOf<{ archives: readonly object[]; next: string | undefined }>({
      archives: list(ref('Archive')),
      next: optional(uuid('Pass it as `after`. Left out on the last page.')),
    }),
    async handle({ bus, query }) {
      const archives = await bus.retention.archives(query)
      const isFull = archives.length === (query.limit ?? limits.listLimit.default)
      return { archives, next: isFull ? archives.at(-1)?.id : undefined }
    },
  }),
  defineRoute({
    ...{ action: 'retention.pendingErasures', method: 'GET', url: '/retention/pending-erasures' },
    tag: 'Retention',
    summary: 'Files of archives that hold events of erased subjects, oldest first.',
    answer: objectOf<{ files: readonly object[] }>({ files: list(ref('PendingErasure')) }),
    handle: async ({ bus }) => ({ files: await bus.retention.pendingErasures() }),
  }),
  defineRoute({
    ...{ action: 'prune.preview', method: 'GET', url: '/prune/preview', tag: 'Retention' },
    summary: 'What a round of retention would do. Changes nothing.',
    answer: ref('RetentionReport'),
    handle: async ({ bus, by }) => bus.prune({ by, dryRun: true }),
  }),
]
