import type { KnownType } from '../../events/contracts/catalogue-description.ts'
import type { Archive } from '../../retention/archive/archives.ts'
import type { PendingErasure } from '../../retention/archive/rewrite-archive.ts'
import type { RetentionPolicy } from '../../retention/policy.ts'
import type { LogRange, PartitionHold, RetentionState } from '../../retention/retention-state.ts'
import type { RangeOutcome, RetentionReport } from '../../retention/round.ts'
import {
  anyOf,
  anyObject,
  choice,
  flag,
  integer,
  list,
  nullable,
  number,
  objectOf,
  optional,
  record,
  ref,
  text,
  time,
  uuid,
} from './schema.ts'

const days = nullable(integer('In days. Null: for ever.'))

/** Schemas of retention, and of declared types. */
export const retentionSchemas = {
  RetentionPolicy: objectOf<RetentionPolicy>({
    logDays: days,
    ledgerDays: days,
    attemptsDays: days,
    keysDays: integer(),
    rollupsDays: integer(),
    auditDays: integer(),
    operationsDays: integer(),
    quarantineDays: integer(),
    deadLettersDays: days,
    archive: flag(),
  }),
  PartitionHold: objectOf<PartitionHold>({
    kind: choice(
      ...(['undispatched', 'scheduled', 'waiting', 'ordered', 'retrying', 'dead', 'blocked'] as const),
      ...(['parked', 'operation'] as const),
    ),
    subscription: optional(text()),
    count: integer('Up to 10,001.'),
    detail: optional(text()),
  }),
  LogRange: objectOf<LogRange>({
    name: text(),
    from: time(),
    to: time('Not included.'),
    lower: uuid(),
    upper: uuid(),
    tables: list(text()),
    estimatedEventCount: number(),
    bytes: number(),
    ageDays: number(),
    isDue: flag(),
  }),
  RetentionState: objectOf<RetentionState>({
    policy: ref('RetentionPolicy'),
    ranges: list(ref('LogRange')),
    next: optional(
      objectOf<NonNullable<RetentionState['next']>>({
        range: ref('LogRange'),
        dueAt: time(),
        holds: list(ref('PartitionHold')),
      }),
    ),
    defaultPartitions: list(text()),
    droppedBefore: optional(time()),
    lastRoundAt: optional(time()),
    lastError: optional(text()),
  }),
  RetentionReport: objectOf<RetentionReport>({
    ranges: list(
      objectOf<RangeOutcome>({
        range: ref('LogRange'),
        outcome: choice('due', 'held', 'dropped', 'busy', 'elsewhere', 'changed'),
        holds: list(ref('PartitionHold')),
      }),
    ),
    deleted: record(integer(), 'Rows, by what they are. For a preview counted up to 10,001.'),
    rewrittenFiles: list(text()),
  }),
  Archive: objectOf<Archive>({
    id: uuid(),
    name: text('The folder of its files.'),
    state: choice('archiving', 'archived', 'dropped'),
    service: text(),
    manifest: optional(text()),
    from: time(),
    to: time('Not included.'),
    rowCounts: record(integer(), 'By table.'),
    fileCount: integer(),
    byteCount: number(),
    pendingFileCount: integer('Files that are still to be rewritten, because a subject was erased.'),
    startedAt: time(),
    archivedAt: optional(time()),
    droppedAt: optional(time()),
  }),
  PendingErasure: objectOf<PendingErasure>({
    archive: text(),
    file: text(),
    tenantId: text(),
    subject: text(),
    requestedAt: time(),
  }),
  DeclaredType: objectOf<KnownType>({
    type: text(),
    version: integer(),
    service: text(),
    schema: optional(anyOf(anyObject(), flag())),
    schemaOrigin: choice('standard', 'arktype', 'valibot', 'unknown'),
    sources: optional(list(text())),
    upcastsFrom: optional(integer()),
    redact: optional(list(text(), 'Paths that reads hide.')),
  }),
} as const
