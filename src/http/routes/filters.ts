import { limits } from '../../foundation/limits.ts'
import type { OutboxStatus } from '../../operations/delivery-status.ts'
import {
  choiceField,
  flagField,
  integerField,
  jsonField,
  listField,
  required,
  textField,
  timeField,
  uuidField,
} from '../fields.ts'
import { deliveryStates } from '../schemas/state-words.ts'

export const limit = integerField(limits.listLimit)
export const queryLimit = integerField(limits.queryLimit)
export const tenantId = textField('Of this tenant alone.', limits.keyLength)
export const subscription = textField('The name of a subscription.', limits.subscriptionNameLength)
export const reason = textField('Why. Recorded.', 2000)

/** Of what an operation does. */
export const rate = integerField({ min: 1, max: limits.operationRate }, 'Events a second, at most.')

/** The id of an event, in a path. */
export const idInPath = { id: required(uuidField()) } as const

/** The words of hand-written outbox tables. */
const outboxWords = [
  'PENDING',
  'PROCESSING',
  'PUBLISHED',
  'FAILED',
  'DEAD_LETTER',
] as const satisfies readonly OutboxStatus[]

/** What filters of events have in common. */
export const eventFilter = {
  type: listField('One type, or several.'),
  pattern: listField('Patterns such as `payment.*`: one of them must match.'),
  source: textField(undefined, limits.sourceLength),
  subject: textField(undefined, limits.subjectLength),
  correlationId: textField(undefined, limits.keyLength),
  causationId: uuidField('The event that caused it.'),
  eventId: textField('The business id.', limits.keyLength),
  idempotencyKey: textField(undefined, limits.keyLength),
  orderingKey: textField(undefined, limits.keyLength),
  status: choiceField([...deliveryStates, ...outboxWords], 'Where it is for some subscription.'),
  'status.subscription': textField('The subscription that `status` is about.', limits.subscriptionNameLength),
  payload: jsonField<Record<string, unknown>>('A part of the payload, as a JSON object.', {
    type: 'object',
  }),
  tenantId,
  limit,
} as const

export const eventSpan = {
  from: timeField('Published at this time or later.'),
  to: timeField('Published before this time.'),
} as const

export const eventPage = {
  after: uuidField('`next` of the page before.'),
  order: choiceField(['newest', 'oldest'], '`newest` first unless it says otherwise.'),
} as const

export const readLimit = integerField(
  limits.readLimit,
  'How many events are read at most where no index answers.',
)

/** The conditions that dead letters are selected by. */
export const letterConditions = {
  subscription,
  fingerprint: textField('The same for all errors that are alike.', limits.keyLength),
  errorName: textField('The class of the last error.', limits.keyLength),
  errorCode: textField(undefined, limits.keyLength),
  state: choiceField(['dead', 'blocked', 'parked']),
  from: timeField('Dead at this time or later.'),
  to: timeField('Dead before this time.'),
  tenantId,
} as const

export const types = listField('A type of events, or several.')

export const full = flagField('Everything is read anew, with lags and the outbox.')

/** Takes the filter of a query as the bus does: `status` and its subscription are one value. */
export function toEventFilter<
  T extends { readonly status: string | undefined; readonly 'status.subscription': string | undefined },
>(
  given: T,
): Omit<T, 'status' | 'status.subscription'> & { readonly status?: never; readonly exactNumbers: true } {
  const { status: state, 'status.subscription': ofSubscription, ...rest } = given
  const status = ofSubscription === undefined ? state : { state, subscription: ofSubscription }
  // Whether it is a state is checked by the bus.
  return { ...rest, status: status as never, exactNumbers: true }
}
