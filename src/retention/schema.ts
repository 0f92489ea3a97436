import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  check,
  jsonb,
  primaryKey,
  text,
  timestamp,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core'
import { busSchema } from '../outbox/schema/schema.ts'

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })

/** What each service has asked to be kept how long: the option `retention` of its `createBus`. */
export const retentionPolicies = busSchema
  .table(
    'retention_policies',
    {
      service: text('service').primaryKey(),
      policy: jsonb('policy').notNull(),
      declaredAt: time('declared_at')
        .notNull()
        .default(sql`now()`),
    },
    () => [check('retention_policies_object', sql`jsonb_typeof(policy) = 'object'`)],
  )
  .enableRLS()

/** What retention has done so far: one row. */
export const retentionState = busSchema
  .table(
    'retention_state',
    {
      id: boolean('id').primaryKey().default(true),
      /** When this release was installed. */
      createdAt: time('created_at')
        .notNull()
        .default(sql`clock_timestamp()`),
      /** The log has been dropped up to here, except for what was held back. */
      droppedBefore: time('dropped_before'),
      roundBeganAt: time('round_began_at'),
      roundEndedAt: time('round_ended_at'),
      /** Why the last round failed. */
      error: text('error'),
      /** The page of `bus.event_keys` that is read next. */
      keyBlock: bigint('key_block', { mode: 'number' }).notNull().default(0),
      keysSweptAt: time('keys_swept_at'),
    },
    () => [check('retention_state_one_row', sql`id`)],
  )
  .enableRLS()

/** From when on the log has partitions of months or of days. Without a row: months. */
export const partitionSpans = busSchema
  .table(
    'partition_spans',
    {
      startsAt: time('starts_at').primaryKey(),
      span: text('span', { enum: ['month', 'day'] }).notNull(),
    },
    () => [check('partition_spans_span_check', sql`span in ('month', 'day')`)],
  )
  .enableRLS()

/** A copy of a range of the log and the ledger, made before its partitions were dropped. */
export const archives = busSchema
  .table(
    'archives',
    {
      id: uuid('id')
        .primaryKey()
        .default(sql`bus.uuid_v7()`),
      lowerBound: uuid('lower_bound').notNull(),
      upperBound: uuid('upper_bound').notNull(),
      /** The folder of its files. */
      name: text('name').notNull(),
      /** `archived`: it was read back and compared. */
      state: text('state', { enum: ['archiving', 'archived', 'dropped'] })
        .notNull()
        .default('archiving'),
      /** The service that has written it. */
      service: text('service').notNull(),
      /** The name of its manifest. */
      manifest: text('manifest'),
      /** Number and hash of the rows of each table. */
      tables: jsonb('tables').notNull().default({}),
      startedAt: time('started_at')
        .notNull()
        .default(sql`clock_timestamp()`),
      archivedAt: time('archived_at'),
      droppedAt: time('dropped_at'),
    },
    (table) => [
      uniqueIndex('archives_open_idx')
        .on(table.lowerBound, table.upperBound)
        .where(sql`state <> 'dropped'`),
      check('archives_state_check', sql`state in ('archiving', 'archived', 'dropped')`),
    ],
  )
  .enableRLS()

/** A file of an archive. */
export const archiveFiles = busSchema
  .table(
    'archive_files',
    {
      archiveId: uuid('archive_id').notNull(),
      name: text('name').notNull(),
      tableName: text('table_name').notNull(),
      rowCount: bigint('row_count', { mode: 'number' }).notNull(),
      byteCount: bigint('byte_count', { mode: 'number' }).notNull(),
      sha256: text('sha256').notNull(),
      /** Hashes of tenant and subject of the events that it is about, in order: for erasures. */
      subjectHashes: bigint('subject_hashes', { mode: 'bigint' }).array().notNull(),
    },
    (table) => [
      primaryKey({ columns: [table.archiveId, table.name], name: 'archive_files_archive_id_name_pk' }),
    ],
  )
  .enableRLS()

/** Files of archives that have to be rewritten, because a subject was erased after they were written. */
export const archiveErasures = busSchema
  .table(
    'archive_erasures',
    {
      archiveId: uuid('archive_id').notNull(),
      file: text('file').notNull(),
      tenantId: text('tenant_id').notNull(),
      subject: text('subject').notNull(),
      requestedAt: time('requested_at')
        .notNull()
        .default(sql`clock_timestamp()`),
      /** Null: still to be done. */
      rewrittenAt: time('rewritten_at'),
    },
    (table) => [
      primaryKey({
        columns: [table.archiveId, table.file, table.tenantId, table.subject],
        name: 'archive_erasures_pk',
      }),
    ],
  )
  .enableRLS()
