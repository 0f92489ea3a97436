import { sql } from 'drizzle-orm'
import { bigint, index, jsonb, primaryKey, smallint, text, timestamp, uuid } from 'drizzle-orm/pg-core'
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
