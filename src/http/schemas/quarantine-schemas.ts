import type {
  QuarantineChanged,
  QuarantinedMessage,
  QuarantinedMessageDetails,
} from '../../transports/receiving/quarantine.ts'
import {
  choice,
  flag,
  integer,
  list,
  objectOf,
  optional,
  record,
  text,
  time,
  uuid,
  type PropertiesOf,
} from './schema.ts'

const message: PropertiesOf<QuarantinedMessage> = {
  id: uuid(),
  receiver: text('The name that was given to `bus.receive`.'),
  messageId: optional(text('The id that its system gave it, or a hash of it. Left out if it gave none.')),
  state: choice('new', 'retrying', 'stored', 'discarded'),
  code: text('Why it is here.') as never,
  reason: text(),
  from: text('The topic, queue, stream or path.'),
  contentType: optional(text()),
  bodyBytes: integer(),
  isCut: flag('Whether a part of it is not stored: it cannot be tried again.'),
  receivedCount: integer('How often its system has delivered it.'),
  receivedAt: time(),
  lastReceivedAt: time(),
  decidedBy: optional(text('Who has had it tried again or discarded.')),
  decidedReason: optional(text()),
  decidedAt: optional(time()),
  eventIds: list(uuid(), 'The events that it has become.'),
}

/** The form of a message with its body that a route answers. */
export interface AnsweredMessage extends Omit<QuarantinedMessageDetails, 'body'> {
  readonly bodyBase64: string
  readonly isBodyCut: boolean
}

/** Schemas of the quarantine. */
export const quarantineSchemas = {
  QuarantinedMessage: objectOf<QuarantinedMessage>(
    message,
    'A message of another system that could not become an event.',
  ),
  QuarantinedMessageDetails: objectOf<AnsweredMessage>({
    ...message,
    key: optional(text()),
    headers: record(text()),
    bodyBase64: text('At most the first 1 MiB of the body, in base64.'),
    isBodyCut: flag('Whether the body is longer.'),
  }),
  QuarantineChanged: objectOf<QuarantineChanged>({
    count: integer('Messages. If it is 10,000, there may be more: send it again.'),
  }),
} as const
