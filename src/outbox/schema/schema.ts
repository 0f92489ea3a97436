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

/** A non-empty text, if it is present: an empty business id would make every event a duplicate. */
const isBetween = (column: AnyPgColumn, maxLength: number) =>
  sql`char_length(${column}) between 1 and ${sql.raw(String(maxLength))}`

const isAtMost = (column: AnyPgColumn, maxLength: number) =>
  sql`char_length(${column}) <= ${sql.raw(String(maxLength))}`

/**
 * The row security of a table with tenant data. A role that does not own the table and has no policy of its own reads
 * the rows of the tenant that is set for the transaction, and no rows if none is set. The tenant is evaluated once per
 * statement, so that indexes are used. Grants decide who may access a table at all: see drizzle/roles.sql.
 */
export const tenantReads = (using = sql`tenant_id = (select bus.current_tenant())`) =>
  pgPolicy('tenant_reads', { for: 'select', to: 'public', using })

/**
 * The log of events. Append-only; only `bus.erase` updates it. RANGE-partitioned by month over the uuid v7 id.
 * Inserting a row, in any language, publishes an event.
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
    /**
     * When its payload and metadata were replaced by a tombstone (null and an empty object). It is not delivered from
     * then on.
     */
    erasedAt: time('erased_at'),
  },
  (table) => [
    index('events_tenant_type_idx').on(table.tenantId, table.id, table.type),
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
    // The same limits as in publish, because plain SQL publishes too. One constraint costs a publisher less than one
    // per column.
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
    // As text, because `1e100000` is short in the table and long for its readers. Short payloads are not measured.
    check(
      'events_payload_length',
      sql`(pg_column_size(${table.payload}) <= 8000 and pg_column_compression(${table.payload}) is null) or octet_length(${table.payload}::text) <= ${sql.raw(String(limits.storedPayloadBytes))}`,
    ),
    // For `bus.erase`. A hash, because a subject may be longer than an index entry, and because it keeps the index
    // small.
    index('events_subject_idx')
      .on(sql`hashtextextended(${table.subject}, hashtextextended(${table.tenantId}, 0))`)
      .where(sql`${table.subject} is not null`),
  ],
)

/**
 * The business ids and idempotency keys that a tenant has used, and their events. Kept for 30 days, or as `retention.keysDays` says: an event that
 * is published with the same one later is a new event.
 */
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
 * The events that are not yet dispatched to the subscriptions: one narrow row per event, deleted by the relay. Events
 * with an ordering key have positions above 2^61, scheduled ones above 2^62, out of the way of other claims. Events
 * that one subscription could not take because of a lock have a row for that subscription alone, at a position below 0.
 */
export const outbox = busSchema.table(
  'outbox',
  {
    position: bigint('position', { mode: 'bigint' }).primaryKey().generatedAlwaysAsIdentity(),
    id: uuid('event_id').notNull(),
    tenantId: text('tenant_id').notNull(),
    type: text('type').notNull(),
    /** Approximate bytes of the payload as text, if it is small: the relay measures large ones. */
    payloadBytes: integer('payload_bytes'),
    orderingKey: text('ordering_key'),
    availableAt: time('available_at'),
    /** The one subscription that the event is not dispatched to yet. Null: none of them. */
    subscriptionId: integer('subscription_id'),
  },
  (table) => [
    // Used by cancel.
    index('outbox_scheduled_idx')
      .on(table.id, table.availableAt)
      .where(sql`${table.availableAt} is not null`),
    // Used by the relay, which claims the two kinds separately: neither claim reads the entries of the other.
    index('outbox_due_idx')
      .on(table.availableAt)
      .where(sql`${table.availableAt} is not null and ${table.orderingKey} is null`),
    index('outbox_due_ordered_idx')
      .on(table.availableAt, table.position)
      .where(sql`${table.availableAt} is not null and ${table.orderingKey} is not null`),
    index('outbox_held_idx')
      .on(table.subscriptionId, table.tenantId, table.orderingKey, table.position)
      .where(sql`${table.subscriptionId} is not null`),
    tenantReads(),
  ],
)

/** Scheduled events that were cancelled before they were due. Their log rows remain. */
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
 * The sources and types that a database role may publish. A role that no rule names, directly or through membership in
 * another role, may publish what its grants allow; the owner of the schema and superusers are not restricted.
 */
export const sourceRules = busSchema.table(
  'source_rules',
  {
    role: text('role').notNull(),
    source: text('source').notNull(),
    /** A type, `**` for all types, or `payment.**` for all types that start with `payment.`. */
    type: text('type').notNull().default('**'),
  },
  (table) => [
    primaryKey({ columns: [table.role, table.source, table.type] }),
    check('source_rules_type_check', sql`type ~ '^([^*]+|([^*]+\\.)?\\*\\*)$'`),
  ],
)
