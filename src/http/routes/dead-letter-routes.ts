import type { DeadLetter } from '../../delivery/operator/dead-letters.ts'
import type { EventCatalogue } from '../../events/catalogue.ts'
import type { Tenant } from '../../tenancy/tenant.ts'
import { limits } from '../../foundation/limits.ts'
import { ConfigurationError } from '../../foundation/errors.ts'
import { cutToSize } from '../answer-size.ts'
import {
  flagField,
  integerField,
  jsonField,
  listField,
  objectField,
  required,
  textField,
  uuidField,
} from '../fields.ts'
import { defineRoute, inTenant, selectionOfTenant, type ApiRoute } from '../route.ts'
import { list, objectOf, optional, ref, text } from '../schemas/schema.ts'
import { letterConditions, limit, rate, reason, subscription, types } from './filters.ts'
import { withoutStacks } from './without-stacks.ts'

const tag = 'Dead letters'

const letterInPath = { subscription: required(subscription), id: required(uuidField()) } as const

const selection = required(
  objectField(
    {
      ...letterConditions,
      type: types,
      ids: listField(
        `1 to ${limits.letterIdCount} ids of events of the subscription, which must be given too.`,
        { type: 'string', format: 'uuid' },
      ),
    },
    'The dead letters that satisfy all that is given, of which there is at least one condition.',
  ),
)

/** A payload, with the rest of the body. */
const payloadBodyLimit = limits.payloadBytes.max + 1_048_576

interface PageAsked {
  readonly type: readonly string[] | undefined
  readonly limit: number | undefined
}

/** A search for types looks at so many dead letters at most, and there may be more behind a page that is not full: an empty one ends the list. */
function toPage(letters: readonly DeadLetter[], { type, limit: given }: PageAsked): object {
  const { kept, isCut } = cutToSize(letters)
  const isFull = isCut || kept.length === (given ?? limits.listLimit.default)
  return { deadLetters: kept, next: isFull || type !== undefined ? kept.at(-1)?.cursor : undefined }
}

function notThere(id: string, name: string): ConfigurationError {
  return new ConfigurationError(
    'BUS_DEAD_LETTER_NOT_FOUND',
    `The event ${id} is no dead letter of ${name}, or is parked behind another one`,
  )
}

/** Under row-level security an event of another tenant is not there. */
const hasEvent = async ({ events }: Pick<Tenant<EventCatalogue>, 'events'>, id: string): Promise<boolean> =>
  (await events.get(id)) !== undefined

/** `bus.deadLetters`. */
export const deadLetterRoutes: readonly ApiRoute[] = [
  defineRoute({
    ...{ action: 'deadLetters.list', method: 'GET', url: '/dead-letters', tag },
    summary: 'A page of dead letters, oldest first.',
    query: {
      ...letterConditions,
      type: types,
      replayId: uuidField('Those of this replay, in place of the others.'),
      after: textField('`next` of the page before.'),
      limit,
    },
    answer: objectOf<{ deadLetters: readonly object[]; next: string | undefined }>({
      deadLetters: list(ref('DeadLetter')),
      next: optional(
        text('Pass it as `after`. Left out on the last page; with `type` an empty page is the last one.'),
      ),
    }),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND', 'BUS_OPERATION_NOT_FOUND'],
    handle: async ({ bus, query }) => toPage(await bus.deadLetters.list(query), query),
    async handleForTenant({ bus, tenant, tenantId, query }) {
      const { replayId, ...filter } = inTenant(query, tenantId)
      if (replayId === undefined) return toPage(await tenant.deadLetters.list(filter), query)
      // A replay of the tenant's own, or it is not there.
      const { id } = await tenant.operations.get(replayId)
      const letters = await bus.deadLetters.list({ ...filter, tenantId, replayId: id })
      return toPage(letters.map(withoutStacks), query)
    },
  }),
  defineRoute({
    ...{ action: 'deadLetters.groups', method: 'GET', url: '/dead-letters/groups', tag },
    summary: 'Dead letters by error, the most first.',
    query: { ...letterConditions, limit },
    answer: objectOf<{ groups: readonly object[] }>({ groups: list(ref('DeadLetterGroup')) }),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, query }) => ({ groups: await bus.deadLetters.groups(query) }),
    handleForTenant: async ({ tenant, tenantId, query }) => ({
      groups: await tenant.deadLetters.groups(inTenant(query, tenantId)),
    }),
  }),
  defineRoute({
    ...{ action: 'deadLetters.get', method: 'GET', url: '/dead-letters/:subscription/:id', tag },
    summary: 'One dead letter with its attempts, its key, and what a redrive would do.',
    params: letterInPath,
    answer: ref('DeadLetterDetails'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND', 'BUS_DEAD_LETTER_NOT_FOUND'],
    async handle({ bus, params: { id, subscription: name } }) {
      const letter = await bus.deadLetters.get(id, name)
      if (letter === undefined) throw notThere(id, name)
      return letter
    },
    async handleForTenant({ bus, tenant, params: { id, subscription: name } }) {
      const isOwn = await hasEvent(tenant, id)
      const letter = isOwn ? await bus.deadLetters.get(id, name) : undefined
      if (letter === undefined) throw notThere(id, name)
      const timeline = letter.timeline.map(({ instanceId: _hidden, ...attempt }) => attempt)
      return { ...withoutStacks(letter), timeline }
    },
  }),
  defineRoute({
    ...{ action: 'deadLetters.preview', method: 'POST', url: '/dead-letters/preview', tag },
    summary: 'Counts what a redrive or a discard would be about. Changes nothing.',
    body: { selection },
    answer: ref('DeadLetterPreview'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, by, body }) => bus.deadLetters.redrive(body.selection, { by, dryRun: true }),
    handleForTenant: async ({ bus, by, tenantId, body }) =>
      bus.deadLetters.redrive(selectionOfTenant(body.selection, tenantId, 'deadLetters.preview'), {
        by,
        dryRun: true,
      }),
  }),
  defineRoute({
    ...{ action: 'deadLetters.redrive', method: 'POST', url: '/dead-letters/redrive', tag },
    summary: 'Has dead letters tried again: one, some, or all that match.',
    body: {
      selection,
      reason,
      rate,
      probe: integerField(limits.probeCount, 'How many go first, alone.'),
    },
    status: 202,
    answer: ref('Operation'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, by, body: { selection: given, ...options } }) =>
      bus.deadLetters.redrive(given, { ...options, by }),
    handleForTenant: async ({ bus, by, tenantId, body: { selection: given, ...options } }) =>
      bus.deadLetters.redrive(selectionOfTenant(given, tenantId, 'deadLetters.redrive'), { ...options, by }),
  }),
  defineRoute({
    ...{ action: 'deadLetters.discard', method: 'POST', url: '/dead-letters/discard', tag },
    summary: 'Gives dead letters up: their events are never delivered to the subscription.',
    body: { selection, reason: required(reason) },
    status: 202,
    answer: ref('Operation'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, by, body: { selection: given, reason: why } }) =>
      bus.deadLetters.discard(given, { by, reason: why }),
    handleForTenant: async ({ bus, by, tenantId, body: { selection: given, reason: why } }) =>
      bus.deadLetters.discard(selectionOfTenant(given, tenantId, 'deadLetters.discard'), {
        by,
        reason: why,
      }),
  }),
  defineRoute({
    ...{ action: 'deadLetters.redriveEdited', method: 'POST' },
    url: '/dead-letters/:subscription/:id/redrive-edited',
    tag,
    summary: 'Delivers an edited copy of an event in the place of a dead letter.',
    params: letterInPath,
    body: {
      payload: jsonField<unknown>('The whole payload of the copy. Left out: that of the event.'),
      metadata: jsonField<Readonly<Record<string, string>>>('All metadata of the copy.', {
        type: 'object',
        additionalProperties: { type: 'string' },
      }),
      reason,
      dryRun: flagField('Validates, says what would change, and writes nothing.'),
    },
    bodyLimit: payloadBodyLimit,
    answer: ref('EditedRedrive'),
    errors: [
      'BUS_SUBSCRIPTION_NOT_FOUND',
      'BUS_DEAD_LETTER_NOT_FOUND',
      'BUS_INVALID_EVENT',
      'BUS_UNKNOWN_EVENT_TYPE',
      'BUS_PAYLOAD_NOT_JSON',
      'BUS_PAYLOAD_TOO_LARGE',
    ],
    handle: async ({ bus, by, params: { id, subscription: name }, body }) =>
      bus.deadLetters.redriveEdited(id, name, { ...body, by }),
    async handleForTenant({ bus, by, tenant, params: { id, subscription: name }, body }) {
      if (!(await hasEvent(tenant, id))) throw notThere(id, name)
      return bus.deadLetters.redriveEdited(id, name, { ...body, by })
    },
  }),
]
