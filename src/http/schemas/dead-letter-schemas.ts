import type { AttemptFailure } from '../../delivery/attempts/failure.ts'
import type { BlockedKey } from '../../delivery/operator/blocked-keys.ts'
import type { BlockedKeyName, DeadLetter, DeadLetterGroup } from '../../delivery/operator/dead-letters.ts'
import type { DeadLetterDetails } from '../../operations/dead-letters/inspect.ts'
import type { Change } from '../../operations/dead-letters/payload-changes.ts'
import type { DeadLetterPreview } from '../../operations/dead-letters/preview.ts'
import type { EditedRedrive } from '../../operations/dead-letters/redrive-edited.ts'
import {
  choice,
  flag,
  integer,
  list,
  objectOf,
  optional,
  ref,
  text,
  time,
  uuid,
  type PropertiesOf,
} from './schema.ts'

const deadLetter: PropertiesOf<DeadLetter> = {
  id: uuid('The id of the event.'),
  subscription: text(),
  tenantId: optional(text()),
  type: optional(text()),
  state: choice('dead', 'blocked', 'parked'),
  jobId: uuid('The job of pg-boss whose last attempt failed.'),
  attempts: integer(),
  failures: list(ref('Failure'), 'The first and the latest ones.'),
  fingerprint: optional(text('The same for all errors that are alike.')),
  deadAt: time(),
  blockedKey: optional(ref('BlockedKeyName')),
  replayId: optional(uuid('The replay that it is a dead letter of.')),
  cursor: text('For `after`: the next page begins behind it.'),
}

/** Schemas of dead letters and blocked keys. */
export const deadLetterSchemas = {
  Failure: objectOf<AttemptFailure>({
    attempt: integer(),
    at: time(),
    name: text(),
    message: text(),
    code: optional(text()),
    stack: optional(text('Not for tenants.')),
  }),
  BlockedKeyName: objectOf<BlockedKeyName>({
    tenantId: text(),
    orderingKey: text(),
    state: choice('blocked', 'parked'),
  }),
  DeadLetter: objectOf<DeadLetter>(deadLetter, 'An event whose last attempt failed.'),
  DeadLetterDetails: objectOf<DeadLetterDetails>({
    ...deadLetter,
    timeline: list(ref('Attempt'), 'Every attempt, oldest first.'),
    behindCount: integer('Events of its key that wait behind it, up to 10,000.'),
    redrive: choice('retry', 'release-key', 'append-to-key', 'expire', 'erase', 'no-queue', 'not-in-log'),
  }),
  DeadLetterGroup: objectOf<DeadLetterGroup>(
    {
      fingerprint: optional(text()),
      errorName: optional(text()),
      errorCode: optional(text()),
      message: optional(text('Of the newest one.')),
      count: integer(),
      firstAt: time(),
      lastAt: time(),
      subscriptions: list(text()),
      tenantCount: integer(),
      isTenantCountPartial: flag(),
      newestId: uuid(),
      newestSubscription: text(),
    },
    'Dead letters whose errors are alike.',
  ),
  DeadLetterPreview: objectOf<DeadLetterPreview>(
    {
      count: integer(),
      isCountPartial: flag(),
      subscriptions: list(
        objectOf<DeadLetterPreview['subscriptions'][number]>({
          subscription: optional(text()),
          count: integer(),
          keyCount: integer('Those that hold a key.'),
        }),
      ),
      examinedCount: integer('So many were looked at one by one for what follows.'),
      unroutable: objectOf<DeadLetterPreview['unroutable']>({
        noSubscription: integer(),
        noQueue: integer(),
        notInLog: integer(),
        moved: integer(),
      }),
      notHandled: objectOf<DeadLetterPreview['notHandled']>({ expired: integer(), erased: integer() }),
    },
    'What a redrive or a discard would be about.',
  ),
  PayloadChange: objectOf<Change>({
    path: text('Names and positions, separated by dots.'),
    what: choice('added', 'removed', 'changed'),
  }),
  EditedRedrive: objectOf<EditedRedrive>({
    id: optional(uuid('The copy. Left out for a dry run.')),
    changes: list(ref('PayloadChange'), 'Where it differs from the event, without values.'),
  }),
  BlockedKey: objectOf<BlockedKey>(
    {
      subscription: text(),
      tenantId: text(),
      orderingKey: text(),
      state: choice('blocked', 'parked', 'overrunning'),
      id: uuid('The failed event.'),
      attempts: integer(),
      failures: list(ref('Failure')),
      since: time(),
      waitingCount: integer('Events behind the failed one.'),
    },
    'A key of an ordered subscription that waits.',
  ),
} as const
