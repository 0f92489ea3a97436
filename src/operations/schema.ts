import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  check,
  index,
  integer,
  jsonb,
  primaryKey,
  smallint,
  text,
  timestamp,
  uuid,
} from 'drizzle-orm/pg-core'
import { busSchema, tenantReads } from '../outbox/schema/schema.ts'

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })

/**
 * The event types that the services of this database have declared at their starts: one row for each service, type and
 * version. Rows of replaced versions remain.
 */
export const catalogue = busSchema.table(
  'catalogue',
  {
    type: text('type').notNull(),
    version: smallint('version').notNull(),
    service: text('service').notNull(),
    /** JSON Schema (2020-12) of the stored payload. Null if the schema library provides none. */
    schema: jsonb('schema'),
    /** The source of `schema`, or why it is null. */
    schemaOrigin: text('schema_origin', { enum: ['standard', 'arktype', 'valibot', 'unknown'] }).notNull(),
    /** The services that may publish the type. Null: every service. */
    sources: text('sources').array(),
    /** The oldest version that has an upcast. Null if there is no upcast. */
    upcastsFrom: smallint('upcasts_from'),
    /** Paths that are hidden in logs, dashboards and read APIs. */
    redact: text('redact').array(),
    firstSeenAt: time('first_seen_at')
      .notNull()
      .default(sql`clock_timestamp()`),
    /** When the service last added or changed this declaration. */
    changedAt: time('changed_at')
      .notNull()
      .default(sql`clock_timestamp()`),
    /** When a process of the service last started with it, to the day. */
    lastSeenAt: time('last_seen_at')
      .notNull()
      .default(sql`clock_timestamp()`),
  },
  (table) => [primaryKey({ columns: [table.type, table.version, table.service] })],
)

/** The record of erasures: one row for each call of `bus.erase`. */
export const erasures = busSchema.table(
  'erasures',
  {
    id: uuid('id')
      .primaryKey()
      .default(sql`bus.uuid_v7()`),
    tenantId: text('tenant_id').notNull(),
    subject: text('subject').notNull(),
    erasedBy: text('erased_by').notNull(),
    reason: text('reason'),
    /** Events whose payloads this call replaced. */
    eventCount: bigint('event_count', { mode: 'number' })
      .notNull()
      .default(sql`0`),
    /** Records of failed attempts that this call emptied. */
    failureCount: bigint('failure_count', { mode: 'number' })
      .notNull()
      .default(sql`0`),
    startedAt: time('started_at')
      .notNull()
      .default(sql`clock_timestamp()`),
    /** Null while it runs. It stays null if the call was interrupted; another call finishes the work. */
    finishedAt: time('finished_at'),
  },
  (table) => [index('erasures_tenant_id_idx').on(table.tenantId, table.id), tenantReads()],
)

/**
 * Work over many events that goes on by itself. Any process does the next part, in one transaction that locks the row and moves `progress`,
 * so that a crash loses and repeats nothing.
 */
export const operations = busSchema
  .table(
    'operations',
    {
      id: uuid('id')
        .primaryKey()
        .default(sql`bus.uuid_v7()`),
      kind: text('kind', { enum: ['redrive', 'discard', 'replay', 'catch-up', 'remove'] }).notNull(),
      /** `stopped`: by itself, because it would do harm to go on; `state_reason` says why. It can be resumed like a paused one. */
      state: text('state', { enum: ['running', 'paused', 'stopped', 'done', 'cancelled'] })
        .notNull()
        .default('running'),
      /** Who asked for it. */
      actor: text('actor').notNull(),
      reason: text('reason'),
      /** Who paused, resumed or cancelled it last, and why; or why it has stopped. */
      stateActor: text('state_actor'),
      stateReason: text('state_reason'),
      /** Which events it is about. */
      selection: jsonb('selection').notNull(),
      options: jsonb('options').notNull().default({}),
      subscriptionIds: integer('subscription_ids').array().notNull(),
      /** Events a second, at most. Null: no limit. */
      rate: integer('rate'),
      /** What a dry run counted before. */
      expected: jsonb('expected'),
      /** Events that it is about, where that is known. */
      total: bigint('total', { mode: 'number' }),
      /** What it has done so far, by outcome. */
      counts: jsonb('counts').notNull().default({}),
      /** Where it goes on. */
      progress: jsonb('progress').notNull().default({}),
      /** The last error of a part, and how many parts have failed in a row. */
      error: text('error'),
      errorCount: integer('error_count').notNull().default(0),
      nextPartAt: time('next_part_at').notNull().defaultNow(),
      createdAt: time('created_at').notNull().defaultNow(),
      updatedAt: time('updated_at').notNull().defaultNow(),
      finishedAt: time('finished_at'),
    },
    (table) => [
      index('operations_running_idx')
        .on(table.nextPartAt)
        .where(sql`${table.state} = 'running'`),
      index('operations_stopped_idx')
        .on(table.updatedAt)
        .where(sql`${table.state} = 'stopped'`),
      check('operations_kind_check', sql`kind in ('redrive', 'discard', 'replay', 'catch-up', 'remove')`),
      check('operations_state_check', sql`state in ('running', 'paused', 'stopped', 'done', 'cancelled')`),
    ],
  )
  .enableRLS()

/** The test events of `bus.canary`, and when each step saw them. Those of the last days. */
export const canaries = busSchema
  .table(
    'canaries',
    {
      eventId: uuid('event_id').primaryKey(),
      /** The service that published it. */
      service: text('service').notNull(),
      /** By the option `canary.everySeconds`; otherwise by a call. */
      isScheduled: boolean('is_scheduled').notNull(),
      publishedAt: time('published_at')
        .notNull()
        .default(sql`clock_timestamp()`),
      /** When the relay claimed it. */
      dispatchedAt: time('dispatched_at'),
      /** When a worker fetched its job. */
      fetchedAt: time('fetched_at'),
      /** When its handler had run. */
      handledAt: time('handled_at'),
      /** When its receipt was written. */
      receivedAt: time('received_at'),
      /** The step that did not come in time. Null if it was over in time, and while it is under way. */
      failedStep: text('failed_step', { enum: ['relay', 'worker', 'receipt'] }),
      /** When its event was removed from the log. */
      removedAt: time('removed_at'),
    },
    (table) => [
      index('canaries_published_idx').on(table.publishedAt),
      check('canaries_failed_step_check', sql`failed_step in ('relay', 'worker', 'receipt')`),
    ],
  )
  .enableRLS()
