import { limits } from '../../foundation/limits.ts'
import { choiceField, listField, required, textField, timeField, uuidField } from '../fields.ts'
import { defineRoute, selectionOfTenant, type ApiRoute } from '../route.ts'
import { anyOf, flag, list, objectOf, optional, ref, uuid } from '../schemas/schema.ts'
import { operationKinds, operationStates } from '../schemas/state-words.ts'
import { idInPath, limit, rate, reason, subscription, tenantId } from './filters.ts'

const tag = 'Operations'

const operation = anyOf(ref('Operation'), ref('TenantOperation'))

const changed = objectOf<{ changed: boolean }>({
  changed: flag('False if it was so already, or has ended: nothing was changed.'),
})

function toPage(operations: readonly { readonly id: string }[], given: number | undefined): object {
  const isFull = operations.length === (given ?? limits.listLimit.default)
  return { operations, next: isFull ? operations.at(-1)?.id : undefined }
}

const replaySelection = {
  tenantId,
  type: listField('Names of types and patterns: one of them must match.'),
  from: timeField('Published at this time or later.'),
  to: timeField('Published before this time.'),
  correlationId: textField('Together with `tenantId`.', limits.keyLength),
  subject: textField('Together with `tenantId`.', limits.subjectLength),
  ids: listField(`Up to ${limits.replayIdCount} ids.`, { type: 'string', format: 'uuid' }),
  subscriptions: required(listField('The subscriptions that get the events, 1 to 100.')),
} as const

/** What a person may do to an operation. */
const steps = [
  ['pause', 'Holds an operation.'],
  ['resume', 'Goes on with an operation that was paused, or has stopped by itself.'],
  ['cancel', 'Ends an operation before it is done.'],
] as const

/** `bus.operations` and `bus.replay`. */
export const operationRoutes: readonly ApiRoute[] = [
  defineRoute({
    ...{ action: 'operations.list', method: 'GET', url: '/operations', tag },
    summary: 'A page of operations, latest first.',
    description: 'Who belongs to a tenant sees those over the events of this tenant alone, without filters.',
    query: {
      kind: choiceField(operationKinds),
      state: choiceField(operationStates),
      subscription,
      after: uuidField('`next` of the page before.'),
      limit,
    },
    answer: objectOf<{ operations: readonly object[]; next: string | undefined }>({
      operations: list(operation),
      next: optional(uuid('Pass it as `after`. Left out on the last page.')),
    }),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, query }) => toPage(await bus.operations.list(query), query.limit),
    handleForTenant: async ({ tenant, query }) => toPage(await tenant.operations.list(query), query.limit),
  }),
  defineRoute({
    ...{ action: 'operations.get', method: 'GET', url: '/operations/:id', tag },
    summary: 'One operation.',
    params: idInPath,
    answer: operation,
    errors: ['BUS_OPERATION_NOT_FOUND'],
    handle: async ({ bus, params: { id } }) => bus.operations.get(id),
    handleForTenant: async ({ tenant, params: { id } }) => tenant.operations.get(id),
  }),
  ...steps.map(([step, summary]) =>
    defineRoute({
      ...{ action: `operations.${step}`, method: 'POST', url: `/operations/:id/${step}`, tag, summary },
      params: idInPath,
      body: { reason },
      answer: changed,
      errors: ['BUS_OPERATION_NOT_FOUND'],
      handle: async ({ bus, by, params: { id }, body }) => ({
        changed: await bus.operations[step](id, { by, reason: body.reason }),
      }),
      async handleForTenant({ bus, by, tenant, params, body }) {
        const { id } = await tenant.operations.get(params.id)
        return { changed: await bus.operations[step](id, { by, reason: body.reason }) }
      },
    }),
  ),
  defineRoute({
    ...{ action: 'replay.preview', method: 'POST', url: '/replay/preview', tag },
    summary: 'Counts what a replay would do. Changes nothing.',
    body: replaySelection,
    answer: ref('ReplayPreview'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND', 'BUS_INVALID_PATTERN'],
    handle: async ({ bus, body }) => bus.replay({ ...body, dryRun: true }),
    handleForTenant: async ({ bus, tenantId: own, body: { subscriptions, ...selection } }) =>
      bus.replay({ ...selectionOfTenant(selection, own, 'replay.preview'), subscriptions, dryRun: true }),
  }),
  defineRoute({
    ...{ action: 'replay', method: 'POST', url: '/replay', tag },
    summary: 'Delivers events of the log to chosen subscriptions once more.',
    body: { ...replaySelection, rate, reason },
    status: 202,
    answer: ref('Operation'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND', 'BUS_INVALID_PATTERN'],
    handle: async ({ bus, by, body }) => bus.replay({ ...body, by }),
    handleForTenant: async ({ bus, by, tenantId: own, body }) => {
      const { subscriptions, rate: most, reason: why, ...selection } = body
      return bus.replay({
        ...selectionOfTenant(selection, own, 'replay'),
        ...{ subscriptions, rate: most, reason: why, by },
      })
    },
  }),
]
