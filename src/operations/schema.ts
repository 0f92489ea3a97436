import { sql } from 'drizzle-orm'
import { bigint, index, jsonb, primaryKey, smallint, text, timestamp, uuid } from 'drizzle-orm/pg-core'
import { busSchema, tenantReads } from '../outbox/schema/schema.ts'

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })

/**
 * The event types that the services of this database know, as each declared them at a start: one row for each service,
 * type and version. Rows of versions that a service has gone on from stay.
 */
export const catalogue = busSchema.table(
  'catalogue',
  {
    type: text('type').notNull(),
    version: smallint('version').notNull(),
    service: text('service').notNull(),
    /** JSON Schema (2020-12) of the stored payload. Null where the schema library gives none. */
    schema: jsonb('schema'),
    /** What `schema` comes from, or why there is none. */
    schemaOrigin: text('schema_origin', { enum: ['standard', 'arktype', 'valibot', 'unknown'] }).notNull(),
    /** Who may publish the type. Null: every source. */
    sources: text('sources').array(),
    /** The oldest version that an upcast leads on from. Null where there is none. */
    upcastsFrom: smallint('upcasts_from'),
    /** Paths that are not shown in logs, dashboards and read APIs. */
    redact: text('redact').array(),
    firstSeenAt: time('first_seen_at')
      .notNull()
      .default(sql`clock_timestamp()`),
    /** When the service last declared it anew or otherwise. */
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

/** Who erased a subject, and what of it. One row for each call of `bus.erase`. */
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
    /** Null while it runs, and for good where it was cut off: calling again goes on. */
    finishedAt: time('finished_at'),
  },
  (table) => [index('erasures_tenant_id_idx').on(table.tenantId, table.id), tenantReads()],
)
