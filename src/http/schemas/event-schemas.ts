import type {
  AttemptRecord,
  Discard,
  EventDelivery,
  LastError,
  ReplayedDelivery,
} from '../../operations/event-deliveries.ts'
import type { EventState } from '../../operations/event-states.ts'
import type { HistoryEvent } from '../../operations/history-event.ts'
import type { Published } from '../../events/envelope.ts'
import {
  anything,
  choice,
  flag,
  integer,
  list,
  number,
  objectOf,
  optional,
  record,
  ref,
  text,
  time,
  uuid,
} from './schema.ts'
import { deliveryStates } from './state-words.ts'

/** Schemas of events and of what became of them. */
export const eventSchemas = {
  Event: objectOf<HistoryEvent>(
    {
      id: uuid('A uuid v7, ordered by publish time.'),
      type: text(),
      source: text('The service that published it.'),
      subject: optional(text()),
      tenantId: text(),
      payload: anything(
        'As it was stored, redacted as the catalogue of the answering process says. A number that no JavaScript number is equal to is given as a string of its digits.',
      ),
      schemaVersion: integer(),
      eventId: optional(text('The business id.')),
      idempotencyKey: optional(text()),
      correlationId: optional(text()),
      causationId: optional(uuid('The event that caused it.')),
      orderingKey: optional(text()),
      metadata: record(text()),
      expiresAt: optional(time()),
      createdAt: time(),
      availableAt: optional(time('It is, or was, scheduled for this time.')),
      cancelledAt: optional(time()),
      erasedAt: optional(time()),
    },
    'An event of the log.',
  ),
  EventState: objectOf<EventState>({ id: uuid(), subscription: text(), state: choice(...deliveryStates) }),
  Published: objectOf<Published>({
    id: uuid('For a duplicate: the id of the first event.'),
    duplicate: flag(),
  }),
  LastError: objectOf<LastError>({
    name: text('The class of the error.'),
    message: text(),
    code: optional(text()),
    at: optional(time()),
  }),
  Attempt: objectOf<AttemptRecord>({
    attempt: integer('From 1.'),
    succeeded: flag(),
    endedAt: time(),
    durationMs: optional(number()),
    error: optional(ref('LastError')),
    instanceId: optional(text('The process that made it. Not for tenants.')),
  }),
  Discard: objectOf<Discard>({
    by: optional(text()),
    reason: optional(text()),
    replacedBy: optional(uuid('The edited copy that is delivered in its place.')),
  }),
  ReplayedDelivery: objectOf<ReplayedDelivery>({
    replayId: uuid('The operation.'),
    state: choice('planned', 'waiting', 'delivering', 'retrying', 'delivered', 'expired', 'erased', 'dead'),
    attempts: integer(),
    lastError: optional(ref('LastError')),
    dueAt: optional(time()),
    settledAt: optional(time()),
    durationMs: optional(number()),
  }),
  Delivery: objectOf<EventDelivery>(
    {
      subscription: text(),
      state: choice(...deliveryStates, 'replayed'),
      attempts: integer('Finished attempts.'),
      lastError: optional(ref('LastError')),
      dueAt: optional(time('When the next attempt may start.')),
      deliveredAt: optional(time()),
      discard: optional(ref('Discard')),
      settledAt: optional(time()),
      durationMs: optional(number('Of the attempt that succeeded.')),
      timeline: list(ref('Attempt'), 'Finished attempts, oldest first.'),
      replays: optional(list(ref('ReplayedDelivery'))),
    },
    'What became of an event for a subscription.',
  ),
} as const
