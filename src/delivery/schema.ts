import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  index,
  integer,
  jsonb,
  primaryKey,
  real,
  smallint,
  text,
  timestamp,
  unique,
  uuid,
} from 'drizzle-orm/pg-core'
import { busSchema, tenantReads } from '../outbox/schema/schema.ts'

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })

/** Raised on every change of a subscription, so that a relay can tell at a glance whether its copy is current. */
export const subscriptionRevision = busSchema.sequence('subscription_revision')

/** The durable registry: who wants which events. A row stays while its service is down. */
export const subscriptions = busSchema.table('subscriptions', {
  id: integer('id').primaryKey().generatedAlwaysAsIdentity(),
  name: text('name').notNull().unique(),
  service: text('service').notNull(),
  patterns: text('patterns').array().notNull(),
  where: text('where'),
  options: jsonb('options').notNull(),
  revision: bigint('revision', { mode: 'bigint' })
    .notNull()
    .default(sql`nextval('bus.subscription_revision')`),
  pausedAt: time('paused_at'),
  pausedBy: text('paused_by'),
  pauseReason: text('pause_reason'),
  /** Since when every attempt has failed, so that only single events are tried: see failure-window.ts. */
  circuitOpenedAt: time('circuit_opened_at'),
  circuitReason: text('circuit_reason'),
  /** When the next event may be tried. Who moves it tries one. */
  circuitProbeAt: time('circuit_probe_at'),
  circuitProbeCount: integer('circuit_probe_count').notNull().default(0),
  /** Since when jobs wait that a process has left to other code: see coverage.ts. Null where none does. */
  uncoveredSince: time('uncovered_since'),
  createdAt: time('created_at').notNull().defaultNow(),
  updatedAt: time('updated_at').notNull().defaultNow(),
})

/**
 * What the code of a service declares of a subscription: one row for each variant that has been started. The active ones decide
 * what is routed; the newest of them gives the options of the queue, which {@link subscriptions} repeats.
 */
export const declarations = busSchema.table(
  'declarations',
  {
    /** Ascending in the order in which the variants were first started. */
    id: integer('id').primaryKey().generatedAlwaysAsIdentity(),
    subscriptionId: integer('subscription_id').notNull(),
    /** Of patterns, predicate and options. */
    hash: text('hash').notNull(),
    patterns: text('patterns').array().notNull(),
    where: text('where'),
    options: jsonb('options').notNull(),
    declaredAt: time('declared_at').notNull().defaultNow(),
    /** Since when it no longer counts: no process has had it for a while, and others have another one. */
    retiredAt: time('retired_at'),
  },
  (table) => [unique('declarations_variant_unique').on(table.subscriptionId, table.hash)],
)

/** The processes that run a bus: one row each, gone after a stop, or a while after a crash. */
export const instances = busSchema.table('instances', {
  id: uuid('id').primaryKey(),
  service: text('service').notNull(),
  host: text('host').notNull(),
  pid: integer('pid').notNull(),
  /** Of bossbus. */
  version: text('version').notNull(),
  startedAt: time('started_at').notNull().defaultNow(),
  /** When it last did its upkeep: about every ten seconds. */
  seenAt: time('seen_at').notNull(),
  /** What its relay does. */
  relay: text('relay').notNull(),
  /** Events in the hands of its workers. */
  inFlightCount: integer('in_flight_count').notNull().default(0),
  /** What it declares: ids of {@link declarations}. */
  declarations: integer('declarations').array().notNull(),
})

/** The ledger: one receipt for each event and subscription that is done: delivered, or expired. RANGE-partitioned in step with the log. */
export const deliveries = busSchema.table(
  'deliveries',
  {
    subscriptionId: integer('subscription_id').notNull(),
    id: uuid('event_id').notNull(),
    /** Attempts that were made: the one that succeeded is the last; of an expired event, all have failed, if there were any. */
    attempts: smallint('attempts').notNull(),
    /** Its time had passed before it was delivered: the handler was not called (again). */
    expired: boolean('expired').notNull().default(false),
    durationMs: real('duration_ms').notNull(),
    deliveredAt: time('delivered_at').notNull().defaultNow(),
    /** True: it was erased before it was delivered. Null otherwise, which takes no space in the row. */
    erased: boolean('erased'),
  },
  (table) => [
    primaryKey({ columns: [table.subscriptionId, table.id] }),
    // Without a tenant of its own, which every receipt would carry: those of the events that can be seen.
    tenantReads(sql`exists (select from bus.events e where e.id = deliveries.event_id)`),
  ],
)

/**
 * The keys of ordered subscriptions that have events to deliver, or wait for a person: one row each, gone when the
 * key has nothing left. The row is the lock under which a key's events come and go.
 */
export const orderedKeys = busSchema.table(
  'ordered_keys',
  {
    /** Made of the time: a sequence that a copy of the database has lost would give ids that are in use. */
    id: bigint('id', { mode: 'bigint' })
      .primaryKey()
      .default(sql`bus.new_key_id()`),
    subscriptionId: integer('subscription_id').notNull(),
    /** Of tenant and key: they may be of any length, index entries may not. */
    keyHash: uuid('key_hash').notNull(),
    tenantId: text('tenant_id').notNull(),
    orderingKey: text('ordering_key').notNull(),
    state: text('state', { enum: ['active', 'blocked', 'parked', 'overrunning'] })
      .notNull()
      .default('active'),
    /** The one pg-boss job of the key: its first events. Null while the key is blocked or parked. */
    jobId: uuid('job_id'),
    /** Everything of the key up to here is done. */
    doneSeq: bigint('done_seq', { mode: 'bigint' })
      .notNull()
      .default(sql`0`),
    /** Up to here events are delivered one by one: a worker died over them. */
    singlyThroughSeq: bigint('singly_through_seq', { mode: 'bigint' })
      .notNull()
      .default(sql`0`),
    failedEventId: uuid('failed_event_id'),
    attempts: smallint('attempts'),
    failures: jsonb('failures'),
    failedAt: time('failed_at'),
  },
  (table) => [
    unique('ordered_keys_key_unique').on(table.subscriptionId, table.keyHash),
    index('ordered_keys_failed_idx')
      .on(table.failedAt)
      .where(sql`${table.failedAt} is not null`),
    tenantReads(),
  ],
)

/** The events of those keys that are not done, in the order of delivery. */
export const orderedEvents = busSchema.table(
  'ordered_events',
  {
    keyId: bigint('key_id', { mode: 'bigint' }).notNull(),
    seq: bigint('seq', { mode: 'bigint' }).notNull().generatedAlwaysAsIdentity(),
    id: uuid('event_id').notNull(),
    payloadBytes: integer('payload_bytes').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.keyId, table.seq] }),
    tenantReads(sql`exists (select from bus.ordered_keys k where k.id = ordered_events.key_id)`),
  ],
)
