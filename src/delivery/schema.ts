import { sql } from 'drizzle-orm'
import {
  bigint,
  index,
  integer,
  jsonb,
  primaryKey,
  smallint,
  text,
  timestamp,
  unique,
  uuid,
} from 'drizzle-orm/pg-core'
import { busSchema, tenantReads } from '../outbox/schema/schema.ts'

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })

/** Raised by every change of a subscription, so that a relay can check cheaply whether its copy is current. */
export const subscriptionRevision = busSchema.sequence('subscription_revision')

/** The durable registry of subscriptions. A row remains while its service is down. */
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
  /** Since when the circuit breaker is open, so that only single events are tried: see flow-control/pause-and-breaker.ts. */
  circuitOpenedAt: time('circuit_opened_at'),
  circuitReason: text('circuit_reason'),
  /** When the next event may be tried. The worker that moves it tries one. */
  circuitProbeAt: time('circuit_probe_at'),
  circuitProbeCount: integer('circuit_probe_count').notNull().default(0),
  /** Since when jobs wait that a process has left to other code: see coverage.ts. Null if there are none. */
  uncoveredSince: time('uncovered_since'),
  createdAt: time('created_at').notNull().defaultNow(),
  updatedAt: time('updated_at').notNull().defaultNow(),
  /** While it catches up with the log: the last event of the log that may have been dispatched before it existed. */
  catchUpUntil: uuid('catch_up_until'),
  /** What an operator has set in place of the code's options, until then: `concurrency`, `retry`, `paused`. */
  overrides: jsonb('overrides'),
  overriddenBy: text('overridden_by'),
  overrideReason: text('override_reason'),
  overriddenAt: time('overridden_at'),
  overridesUntil: time('overrides_until'),
  /** When an ordered subscription had caught up with the log: what was held back for it until then is due from here on. */
  catchUpEndedAt: time('catch_up_ended_at'),
})

/** The subscriptions that were removed: which name the id in receipts and attempts stood for. */
export const removedSubscriptions = busSchema.table('removed_subscriptions', {
  id: integer('id').primaryKey(),
  name: text('name').notNull(),
  service: text('service').notNull(),
  registeredAt: time('registered_at').notNull(),
  removedAt: time('removed_at').notNull().defaultNow(),
  removedBy: text('removed_by').notNull(),
})

/**
 * The declarations of a subscription by its service's code: one row for each variant that has been started. The active
 * ones decide about routing; the newest of them determines the options of the queue, which {@link subscriptions}
 * repeats.
 */
export const declarations = busSchema.table(
  'declarations',
  {
    /** Ascending in the order in which the variants were first started. */
    id: integer('id').primaryKey().generatedAlwaysAsIdentity(),
    subscriptionId: integer('subscription_id').notNull(),
    /** The hash of patterns, predicate and options. */
    hash: text('hash').notNull(),
    patterns: text('patterns').array().notNull(),
    where: text('where'),
    options: jsonb('options').notNull(),
    declaredAt: time('declared_at').notNull().defaultNow(),
    /** When it was retired: no process had had it for a while, and others had another one. */
    retiredAt: time('retired_at'),
  },
  (table) => [unique('declarations_variant_unique').on(table.subscriptionId, table.hash)],
)

/** The running processes of the bus: one row each, deleted by a stop, or some time after a crash. */
export const instances = busSchema.table('instances', {
  id: uuid('id').primaryKey(),
  service: text('service').notNull(),
  host: text('host').notNull(),
  pid: integer('pid').notNull(),
  /** The version of bossbus. */
  version: text('version').notNull(),
  startedAt: time('started_at').notNull().defaultNow(),
  /** The time of the last heartbeat, which is sent about every ten seconds. */
  seenAt: time('seen_at').notNull(),
  /** The state of its relay. */
  relay: text('relay').notNull(),
  /** The number of events that its workers have in flight. */
  inFlightCount: integer('in_flight_count').notNull().default(0),
  /** The declarations that it has: ids of {@link declarations}. */
  declarations: integer('declarations').array().notNull(),
})

/**
 * The keys of ordered subscriptions that have events to deliver, or wait for a person: one row each, deleted when the
 * key has no more events. The row is the lock for adding and removing a key's events.
 */
export const orderedKeys = busSchema.table(
  'ordered_keys',
  {
    /** Derived from the time: a sequence whose value a copy of the database has lost would return ids that are in use. */
    id: bigint('id', { mode: 'bigint' })
      .primaryKey()
      .default(sql`bus.new_key_id()`),
    subscriptionId: integer('subscription_id').notNull(),
    /** A hash of tenant and key, because they may be of any length and index entries may not. */
    keyHash: uuid('key_hash').notNull(),
    tenantId: text('tenant_id').notNull(),
    orderingKey: text('ordering_key').notNull(),
    state: text('state', { enum: ['active', 'blocked', 'parked', 'overrunning'] })
      .notNull()
      .default('active'),
    /** The one pg-boss job of the key, with its first events. Null while the key is blocked or parked. */
    jobId: uuid('job_id'),
    /** Every event of the key up to here is settled. */
    doneSeq: bigint('done_seq', { mode: 'bigint' })
      .notNull()
      .default(sql`0`),
    /** Up to here events are delivered one by one, because a worker died while handling them. */
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

/** The unsettled events of these keys, in the order of delivery. */
export const orderedEvents = busSchema.table(
  'ordered_events',
  {
    keyId: bigint('key_id', { mode: 'bigint' }).notNull(),
    seq: bigint('seq', { mode: 'bigint' }).notNull().generatedAlwaysAsIdentity(),
    id: uuid('event_id').notNull(),
    payloadBytes: integer('payload_bytes').notNull(),
    /** The row of `bus.replays`, if it is replayed. */
    replayId: integer('replay_id'),
  },
  (table) => [
    primaryKey({ columns: [table.keyId, table.seq] }),
    index('ordered_events_replay_idx')
      .on(table.replayId)
      .where(sql`${table.replayId} is not null`),
    tenantReads(sql`exists (select from bus.ordered_keys k where k.id = ordered_events.key_id)`),
  ],
)

/**
 * The events that claims have routed to a subscription while it catches up, up to the last one of its catch-up: they are not to come from there
 * too. Deleted when it has caught up.
 */
export const catchUpDispatched = busSchema
  .table(
    'catch_up_dispatched',
    {
      subscriptionId: integer('subscription_id').notNull(),
      eventId: uuid('event_id').notNull(),
    },
    (table) => [primaryKey({ columns: [table.subscriptionId, table.eventId] })],
  )
  .enableRLS()
