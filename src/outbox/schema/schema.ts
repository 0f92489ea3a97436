import { sql } from 'drizzle-orm'
import {
  bigint,
  check,
  index,
  integer,
  jsonb,
  pgPolicy,
  pgSchema,
  primaryKey,
  smallint,
  text,
  timestamp,
  uuid,
  type AnyPgColumn,
} from 'drizzle-orm/pg-core'
import { limits } from '../../foundation/limits.ts'

/** The PostgreSQL schema of every table of the bus. */
export const busSchema = pgSchema('bus')

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })

/** A text that says something, where it is there at all: an empty business id would make every event a duplicate. */
const isBetween = (column: AnyPgColumn, maxLength: number) =>
  sql`char_length(${column}) between 1 and ${sql.raw(String(maxLength))}`

const isAtMost = (column: AnyPgColumn, maxLength: number) =>
  sql`char_length(${column}) <= ${sql.raw(String(maxLength))}`

/**
 * The row security of a table that holds tenant data: whoever does not own it and has no policy of a role of its own
 * reads the rows of the tenant that is set for the transaction, and none where none is set. Asked once a statement, so that
 * indexes are used. What it takes to touch a table at all are grants: see drizzle/roles.sql.
 */
export const tenantReads = (using = sql`tenant_id = (select bus.current_tenant())`) =>
  pgPolicy('tenant_reads', { for: 'select', to: 'public', using })

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
    tenantReads(),
    pgPolicy('publishes', {
      for: 'insert',
      to: 'public',
      withCheck: sql`(select bus.is_unrestricted_publisher(current_user)) or bus.may_publish(current_user, source, type)`,
    }),
    // As publish has them: plain SQL publishes too. One constraint costs a publisher less than one for each column.
    check(
      'events_text_lengths',
      sql.join(
        [
          isBetween(table.tenantId, limits.keyLength),
          isBetween(table.type, limits.typeLength),
          isBetween(table.source, limits.sourceLength),
          isAtMost(table.subject, limits.subjectLength),
          isBetween(table.eventId, limits.keyLength),
          isBetween(table.idempotencyKey, limits.keyLength),
          isAtMost(table.correlationId, limits.keyLength),
          isAtMost(table.orderingKey, limits.keyLength),
        ],
        sql` and `,
      ),
    ),
    check(
      'events_metadata_object',
      sql`jsonb_typeof(${table.metadata}) = 'object' and pg_column_size(${table.metadata}) <= 65536`,
    ),
    // As text, because `1e100000` is short in the table and long for whoever reads it. What is short enough is not looked at.
    check(
      'events_payload_length',
      sql`(pg_column_size(${table.payload}) <= 8000 and pg_column_compression(${table.payload}) is null) or octet_length(${table.payload}::text) <= ${sql.raw(String(limits.storedPayloadBytes))}`,
    ),
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
    id: uuid('event_id').notNull(),
    createdAt: time('created_at')
      .notNull()
      .default(sql`clock_timestamp()`),
  },
  (table) => [
    primaryKey({ columns: [table.tenantId, table.kind, table.key] }),
    tenantReads(),
    check(
      'event_keys_text_lengths',
      sql.join(
        [isBetween(table.tenantId, limits.keyLength), isBetween(table.key, limits.keyLength)],
        sql` and `,
      ),
    ),
  ],
)

/**
 * What is not yet handed over to the subscribers: one narrow row an event, deleted by the relay. Events with an ordering
 * key have positions beyond 2^61, scheduled ones beyond 2^62, out of the way of other claims. What one subscription could
 * not take, because of a lock, has a row for that subscription alone, at a position below 0.
 */
export const outbox = busSchema.table(
  'outbox',
  {
    position: bigint('position', { mode: 'bigint' }).primaryKey().generatedAlwaysAsIdentity(),
    id: uuid('event_id').notNull(),
    tenantId: text('tenant_id').notNull(),
    type: text('type').notNull(),
    /** About the bytes of the payload as text, where it is small: the relay measures large ones. */
    payloadBytes: integer('payload_bytes'),
    orderingKey: text('ordering_key'),
    availableAt: time('available_at'),
    /** Handed over to all but this one. Null: to nobody yet. */
    subscriptionId: integer('subscription_id'),
  },
  (table) => [
    // For cancel.
    index('outbox_scheduled_idx')
      .on(table.id, table.availableAt)
      .where(sql`${table.availableAt} is not null`),
    // For the relay, which claims the two apart: neither claim reads the entries of the other.
    index('outbox_due_idx')
      .on(table.availableAt)
      .where(sql`${table.availableAt} is not null and ${table.orderingKey} is null`),
    index('outbox_due_ordered_idx')
      .on(table.availableAt, table.position)
      .where(sql`${table.availableAt} is not null and ${table.orderingKey} is not null`),
    index('outbox_deferred_idx')
      .on(table.subscriptionId, table.tenantId, table.orderingKey, table.position)
      .where(sql`${table.subscriptionId} is not null`),
    tenantReads(),
  ],
)

/** Scheduled events that were taken back before they fired. Their log rows stay. */
export const cancellations = busSchema.table(
  'cancellations',
  {
    id: uuid('event_id').primaryKey(),
    tenantId: text('tenant_id').notNull(),
    cancelledAt: time('cancelled_at')
      .notNull()
      .default(sql`clock_timestamp()`),
  },
  () => [tenantReads()],
)

/**
 * Which sources and types a database role may publish. A role that no rule names, itself or through a role it is a member
 * of, publishes what its grants allow; the owner of the schema and superusers are bound by none.
 */
export const sourceRules = busSchema.table(
  'source_rules',
  {
    role: text('role').notNull(),
    source: text('source').notNull(),
    /** A type, `**` for all, or `payment.**` for all that begin so. */
    type: text('type').notNull().default('**'),
  },
  (table) => [
    primaryKey({ columns: [table.role, table.source, table.type] }),
    check('source_rules_type_check', sql`type ~ '^([^*]+|([^*]+\\.)?\\*\\*)$'`),
  ],
)
