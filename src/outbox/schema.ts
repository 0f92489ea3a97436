import { sql } from 'drizzle-orm'
import {
  bigint,
  index,
  integer,
  jsonb,
  pgSchema,
  primaryKey,
  smallint,
  text,
  timestamp,
  uuid,
} from 'drizzle-orm/pg-core'

/** The PostgreSQL schema of every table of the bus. */
export const busSchema = pgSchema('bus')

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })

/**
 * The log: what happened. Append-only, never updated but by `bus.erase`. RANGE-partitioned by month over the uuid v7 id.
 * Inserting a row, in any language, is publishing it.
 */
export const events = busSchema.table(
  'events',
  {
    id: uuid('id')
      .primaryKey()
      .default(sql`bus.uuid_v7()`),
    tenantId: text('tenant_id').notNull(),
    type: text('type').notNull(),
    source: text('source').notNull(),
    subject: text('subject'),
    schemaVersion: smallint('schema_version').notNull().default(1),
    payload: jsonb('payload').notNull(),
    eventId: text('event_id'),
    idempotencyKey: text('idempotency_key'),
    correlationId: text('correlation_id'),
    causationId: uuid('causation_id'),
    orderingKey: text('ordering_key'),
    metadata: jsonb('metadata').notNull().default({}),
    availableAt: time('available_at'),
    expiresAt: time('expires_at'),
    createdAt: time('created_at')
      .notNull()
      .default(sql`clock_timestamp()`),
    /** When its payload and metadata were replaced by a tombstone: null and nothing. It is delivered to nobody from then on. */
    erasedAt: time('erased_at'),
  },
  (table) => [
    index('events_tenant_id_idx').on(table.tenantId, table.id),
    index('events_type_idx').on(table.type, table.id),
    index('events_correlation_idx')
      .on(table.tenantId, table.correlationId)
      .where(sql`${table.correlationId} is not null`),
    index('events_causation_idx')
      .on(table.causationId)
      .where(sql`${table.causationId} is not null`),
    // For `bus.erase`. A hash, because a subject may be longer than an index entry, and because it makes small ones.
    index('events_subject_idx')
      .on(sql`hashtextextended(${table.subject}, hashtextextended(${table.tenantId}, 0))`)
      .where(sql`${table.subject} is not null`),
  ],
)

/** Which business ids and idempotency keys a tenant has used, and for which event. Kept for good so far. */
export const eventKeys = busSchema.table(
  'event_keys',
  {
    tenantId: text('tenant_id').notNull(),
    kind: text('kind', { enum: ['event_id', 'idempotency_key'] }).notNull(),
    key: text('key').notNull(),
    eventId: uuid('event_id').notNull(),
    createdAt: time('created_at')
      .notNull()
      .default(sql`clock_timestamp()`),
  },
  (table) => [
    primaryKey({ columns: [table.tenantId, table.kind, table.key] }),
    index('event_keys_created_idx').using('brin', table.createdAt),
  ],
)

/**
 * What is not yet handed over to the subscribers: one narrow row an event, deleted by the relay. Events with an ordering
 * key have positions beyond 2^61, scheduled ones beyond 2^62, out of the way of other claims.
 */
export const outbox = busSchema.table(
  'outbox',
  {
    position: bigint('position', { mode: 'bigint' }).primaryKey().generatedAlwaysAsIdentity(),
    eventId: uuid('event_id').notNull(),
    tenantId: text('tenant_id').notNull(),
    type: text('type').notNull(),
    /** About the bytes of the payload as text, where it is small: the relay measures large ones. */
    payloadBytes: integer('payload_bytes'),
    orderingKey: text('ordering_key'),
    availableAt: time('available_at'),
  },
  (table) => [
    index('outbox_scheduled_idx')
      .on(table.availableAt, table.eventId)
      .where(sql`${table.availableAt} is not null`),
  ],
)

/** Scheduled events that were taken back before they fired. Their log rows stay. */
export const cancellations = busSchema.table('cancellations', {
  eventId: uuid('event_id').primaryKey(),
  tenantId: text('tenant_id').notNull(),
  cancelledAt: time('cancelled_at')
    .notNull()
    .default(sql`clock_timestamp()`),
})
