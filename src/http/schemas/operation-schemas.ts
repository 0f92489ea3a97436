import type { AuditRecord } from '../../audit/audit.ts'
import type { Erased, Erasure } from '../../operations/erase.ts'
import type { Operation } from '../../operations/operation.ts'
import type { ReplayPreview } from '../../operations/replay/replay.ts'
import type { StandingCounts } from '../../operations/replay/standing.ts'
import type { TenantOperation } from '../../operations/tenant-operations.ts'
import {
  anyObject,
  choice,
  flag,
  integer,
  list,
  number,
  objectOf,
  optional,
  record,
  text,
  time,
  uuid,
  type PropertiesOf,
} from './schema.ts'
import { operationKinds, operationStates } from './state-words.ts'

const standing: PropertiesOf<StandingCounts> = {
  hadCount: integer('It has had them: they are replayed.'),
  neverHadCount: integer('They are replayed too.'),
  waitingCount: integer('It waits for them anyway: they are not replayed.'),
  deadCount: integer('They are its dead letters: they are not replayed.'),
  filteredCount: integer('It does not want them.'),
}

const shared: PropertiesOf<Omit<TenantOperation, 'kind'>> = {
  id: uuid(),
  state: choice(...operationStates),
  stateReason: optional(text('Why it was paused, or has stopped by itself.')),
  selection: anyObject('Which events it is about, as the caller named them.'),
  subscriptions: list(text()),
  rate: optional(number('Events a second, at most.')),
  expected: optional(anyObject('What was counted before it.')),
  totalCount: optional(integer()),
  counts: record(integer(), 'What it has done so far, by outcome.'),
  createdAt: time(),
  updatedAt: time(),
  finishedAt: optional(time()),
}

/** Schemas of operations and of records of changes. */
export const operationSchemas = {
  Operation: objectOf<Operation>(
    {
      ...shared,
      kind: choice(...operationKinds),
      by: text('Who asked for it.'),
      reason: optional(text()),
      stateBy: optional(text('Who paused, resumed or cancelled it last.')),
      options: anyObject(),
      error: optional(text('The last error of a part, while it is tried again.')),
    },
    'Work over many events that goes on by itself.',
  ),
  TenantOperation: objectOf<TenantOperation>(
    { ...shared, kind: choice('redrive', 'discard', 'replay') },
    'An operation over the events of one tenant, as that tenant sees it.',
  ),
  ReplayPreview: objectOf<ReplayPreview>({
    eventCount: integer(),
    isPartial: flag('There are more than were looked at.'),
    subscriptions: list(
      objectOf<ReplayPreview['subscriptions'][number]>({ subscription: text(), ...standing }),
    ),
  }),
  AuditRecord: objectOf<AuditRecord>(
    {
      id: uuid(),
      at: time(),
      by: text(),
      action: text(),
      subscription: optional(text()),
      tenantId: optional(text()),
      eventId: optional(uuid()),
      operationId: optional(uuid()),
      reason: optional(text()),
      selection: optional(anyObject()),
      change: optional(anyObject()),
      expected: optional(anyObject()),
      outcome: optional(anyObject()),
      finishedAt: optional(time()),
    },
    'A change by a person or a program.',
  ),
  Erased: objectOf<Erased>({
    id: uuid(),
    eventCount: integer(),
    failureCount: integer(),
    archiveFiles: list(text(), 'Files that are still to be rewritten.'),
  }),
  Erasure: objectOf<Erasure>({
    id: uuid(),
    eventCount: integer(),
    failureCount: integer(),
    tenantId: text(),
    subject: text(),
    by: text(),
    reason: optional(text()),
    startedAt: time(),
    finishedAt: optional(time()),
  }),
} as const
