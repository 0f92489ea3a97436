import { limits } from '../../foundation/limits.ts'
import type { NewEvent } from '../../events/envelope.ts'
import type { EventCatalogue } from '../../events/catalogue.ts'
import {
  choiceField,
  integerField,
  jsonField,
  objectField,
  required,
  textField,
  timeField,
  uuidField,
} from '../fields.ts'
import { defineRoute, ofTenant, type ApiRoute } from '../route.ts'
import { flag, list, objectOf, optional, ref, text, time } from '../schemas/schema.ts'
import { idInPath, reason, tenantId } from './filters.ts'

/** A payload and metadata, with the rest of the body. */
const eventBodyLimit = limits.payloadBytes.max + 1_048_576

const newEvent = {
  type: required(textField(undefined, limits.typeLength)),
  tenantId: required(textField(undefined, limits.keyLength)),
  payload: required(jsonField<unknown>()),
  eventId: textField('The business id.', limits.keyLength),
  idempotencyKey: textField(undefined, limits.keyLength),
  correlationId: textField(undefined, limits.keyLength),
  causationId: uuidField(),
  orderingKey: textField(undefined, limits.keyLength),
  subject: textField(undefined, limits.subjectLength),
  availableAt: timeField(),
  availableIn: objectField({
    seconds: required(integerField({ min: 0, max: limits.availableInSeconds })),
  }),
  expiresAt: timeField(),
  metadata: jsonField<Readonly<Record<string, string>>>(undefined, {
    type: 'object',
    additionalProperties: { type: 'string' },
  }),
} as const

/** Changes of single events and of what is kept. */
export const changeRoutes: readonly ApiRoute[] = [
  defineRoute({
    ...{ action: 'publishByHand', method: 'POST', url: '/events', tag: 'Events' },
    summary:
      'Publishes an event by hand, for a test or a repair. Only for those to whom it is granted by name.',
    body: { event: required(objectField(newEvent)), reason },
    bodyLimit: eventBodyLimit,
    answer: ref('Published'),
    errors: [
      'BUS_INVALID_EVENT',
      'BUS_UNKNOWN_EVENT_TYPE',
      'BUS_TENANT_REQUIRED',
      'BUS_PAYLOAD_NOT_JSON',
      'BUS_PAYLOAD_TOO_LARGE',
      'BUS_SOURCE_NOT_ALLOWED',
      'BUS_OVERLOADED',
    ],
    handle: async ({ bus, by, body: { event, reason: why } }) =>
      bus.publishByHand(event as NewEvent<EventCatalogue>, { by, reason: why }),
    handleForTenant: async ({ bus, by, tenantId: own, body: { event, reason: why } }) =>
      bus.publishByHand(ofTenant(event ?? {}, own) as NewEvent<EventCatalogue>, { by, reason: why }),
  }),
  defineRoute({
    ...{ action: 'cancel', method: 'POST', url: '/events/:id/cancel', tag: 'Events' },
    summary: 'Cancels a scheduled event before it is due.',
    params: idInPath,
    body: { tenantId, reason },
    answer: objectOf<{ cancelled: boolean }>({
      cancelled: flag('False if it is dispatched or cancelled already, was not scheduled, or is not there.'),
    }),
    handle: async ({ bus, by, params: { id }, body }) => ({
      cancelled: await bus.cancel(id, { ...body, by }),
    }),
    handleForTenant: async ({ bus, by, tenantId: own, params: { id }, body }) => ({
      cancelled: await bus.cancel(id, { ...ofTenant(body, own), by }),
    }),
  }),
  defineRoute({
    ...{ action: 'erase', method: 'POST', url: '/erase', tag: 'Retention' },
    summary: 'Erases what the log holds about a subject of a tenant. Takes five seconds or longer.',
    body: {
      tenantId: required(textField(undefined, limits.keyLength)),
      subject: required(textField(undefined, limits.subjectLength)),
      reason: textField('Why. Recorded.', 1024),
    },
    answer: ref('Erased'),
    handle: async ({ bus, by, body }) => bus.erase({ ...body, by }),
    handleForTenant: async ({ bus, by, tenantId: own, body }) => bus.erase({ ...ofTenant(body, own), by }),
  }),
  defineRoute({
    ...{ action: 'prune', method: 'POST', url: '/prune', tag: 'Retention' },
    summary: 'Does a round of retention now.',
    body: { reason },
    answer: ref('RetentionReport'),
    errors: ['BUS_RETENTION_RUNNING'],
    handle: async ({ bus, by, body }) => bus.prune({ ...body, by }),
  }),
  defineRoute({
    ...{ action: 'retention.setPartitionSpan', method: 'POST', url: '/retention/partition-span' },
    tag: 'Retention',
    summary: 'From the next month on, the log gets a partition for each day, or for each month.',
    body: { span: required(choiceField(['month', 'day'])), reason },
    answer: objectOf<{ from: Date | undefined }>({ from: optional(time('Left out if it is so already.')) }),
    handle: async ({ bus, by, body }) => ({
      from: await bus.retention.setPartitionSpan({ ...body, by }),
    }),
  }),
  defineRoute({
    ...{ action: 'retention.rewriteArchives', method: 'POST', url: '/retention/rewrite-archives' },
    tag: 'Retention',
    summary: 'Rewrites archives that hold events of erased subjects.',
    answer: objectOf<{ files: readonly string[] }>({ files: list(text()) }),
    errors: ['BUS_RETENTION_RUNNING'],
    handle: async ({ bus }) => ({ files: await bus.retention.rewriteArchives() }),
  }),
  defineRoute({
    ...{ action: 'canary', method: 'POST', url: '/canary', tag: 'Health' },
    summary: 'Publishes a test event, and waits for its receipt.',
    body: { timeoutMs: integerField(limits.canaryTimeoutMs) },
    answer: ref('Canary'),
    errors: ['BUS_INVALID_STATE'],
    handle: async ({ bus, body }) => bus.canary(body),
  }),
]
