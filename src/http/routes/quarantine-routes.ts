import { limits } from '../../foundation/limits.ts'
import { HttpError } from '../../foundation/errors.ts'
import { quarantineStates } from '../../transports/receiving/quarantine.ts'
import { choiceField, listField, objectField, required, textField, timeField, uuidField } from '../fields.ts'
import { defineRoute, type ApiRoute } from '../route.ts'
import type { AnsweredMessage } from '../schemas/quarantine-schemas.ts'
import { list, objectOf, optional, ref, uuid } from '../schemas/schema.ts'
import { idInPath, limit, reason } from './filters.ts'

const tag = 'Quarantine'

/** The most bytes of a body that are answered. */
const maxBodyBytes = 1_048_576

const conditions = {
  receiver: textField('The name of a receiver.', limits.subscriptionNameLength),
  code: textField('The code of the reason.', 100),
  from: timeField('Received at this time or later.'),
  to: timeField('Received before this time.'),
} as const

const selection = required(
  objectField(
    {
      ...conditions,
      ids: listField(`1 to ${limits.letterIdCount} ids.`, { type: 'string', format: 'uuid' }),
    },
    'The messages that satisfy all that is given, of which there is at least one condition.',
  ),
)

/** `bus.quarantine`. A tenant has no form of it: nobody knows whose a message is that could not be read. */
export const quarantineRoutes: readonly ApiRoute[] = [
  defineRoute({
    ...{ action: 'quarantine.list', method: 'GET', url: '/quarantine', tag },
    summary: 'A page of messages that could not become events, newest first.',
    query: {
      ...conditions,
      state: choiceField(quarantineStates, '`new` unless it says otherwise.'),
      after: uuidField('`next` of the page before.'),
      limit,
    },
    answer: objectOf<{ messages: readonly object[]; next: string | undefined }>({
      messages: list(ref('QuarantinedMessage')),
      next: optional(uuid('Pass it as `after`. Left out on the last page.')),
    }),
    async handle({ bus, query }) {
      const messages = await bus.quarantine.list(query)
      const isFull = messages.length === (query.limit ?? limits.listLimit.default)
      return { messages, next: isFull ? messages.at(-1)?.id : undefined }
    },
  }),
  defineRoute({
    ...{ action: 'quarantine.get', method: 'GET', url: '/quarantine/:id', tag },
    summary: 'One message with its headers and its body, as it came.',
    params: idInPath,
    answer: ref('QuarantinedMessageDetails'),
    errors: ['BUS_MESSAGE_NOT_FOUND'],
    async handle({ bus, params: { id } }): Promise<AnsweredMessage> {
      const found = await bus.quarantine.get(id)
      if (found === undefined)
        throw new HttpError(404, 'BUS_MESSAGE_NOT_FOUND', `There is no message ${id} in the quarantine`)
      const { body, ...message } = found
      return {
        ...message,
        bodyBase64: Buffer.from(body.subarray(0, maxBodyBytes)).toString('base64'),
        isBodyCut: message.bodyBytes > maxBodyBytes,
      }
    },
  }),
  defineRoute({
    ...{ action: 'quarantine.preview', method: 'POST', url: '/quarantine/preview', tag },
    summary: 'Counts what a retry would be about. Changes nothing.',
    body: { selection },
    answer: ref('QuarantineChanged'),
    handle: async ({ bus, by, body }) => bus.quarantine.retry(body.selection, { by, dryRun: true }),
  }),
  defineRoute({
    ...{ action: 'quarantine.retry', method: 'POST', url: '/quarantine/retry', tag },
    summary: 'Has messages go through the receiver again, in a process that runs it.',
    body: { selection, reason },
    status: 202,
    answer: ref('QuarantineChanged'),
    handle: async ({ bus, by, body }) => bus.quarantine.retry(body.selection, { by, reason: body.reason }),
  }),
  defineRoute({
    ...{ action: 'quarantine.discard', method: 'POST', url: '/quarantine/discard', tag },
    summary: 'Gives messages up: they never become events.',
    body: { selection, reason: required(reason) },
    answer: ref('QuarantineChanged'),
    handle: async ({ bus, by, body }) => bus.quarantine.discard(body.selection, { by, reason: body.reason }),
  }),
]
