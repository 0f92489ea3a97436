import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  check,
  index,
  integer,
  primaryKey,
  real,
  smallint,
  text,
  timestamp,
  unique,
  uuid,
} from 'drizzle-orm/pg-core'
import { busSchema, tenantReads } from '../../outbox/schema/schema.ts'

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })

/**
 * The receipts that have a row of their own, under a unique key: of exactly-once subscriptions, of later attempts than the first, of
 * expired and of erased events. RANGE-partitioned in step with the log. All receipts are in {@link deliveries}.
 */
export const receipts = busSchema.table(
  'receipts',
  {
    subscriptionId: integer('subscription_id').notNull(),
    eventId: uuid('event_id').notNull(),
    /** The number of attempts. The last one succeeded; for an expired event all of them failed, if there were any. */
    attempts: smallint('attempts').notNull(),
    /** Whether it expired before it was delivered: the handler was not called (again). */
    expired: boolean('expired').notNull().default(false),
    durationMs: real('duration_ms').notNull(),
    deliveredAt: time('delivered_at').notNull().defaultNow(),
    /** True if it was erased before it was delivered; otherwise null, which takes no space in the row. */
    erased: boolean('erased'),
    /** Of a dead letter that was discarded: the record in `bus.audit`, or the operation, that says by whom and why. It is `expired` too. */
    discardId: uuid('discard_id'),
  },
  (table) => [
    primaryKey({ columns: [table.subscriptionId, table.eventId] }),
    // Receipts have no tenant column of their own, so visibility follows from the event.
    tenantReads(sql`exists (select from bus.events e where e.id = receipts.event_id)`),
  ],
)

/**
 * The receipts of first attempts that settled together: up to 90 in a row, of one subscription and of events that were published in the
 * same ten seconds. RANGE-partitioned in step with the log.
 */
export const receiptBatches = busSchema
  .table(
    'receipt_batches',
    {
      subscriptionId: integer('subscription_id').notNull(),
      /** The lowest of the events' ids. */
      eventId: uuid('event_id').notNull(),
      lastEventId: uuid('last_event_id').notNull(),
      deliveredAt: time('delivered_at').notNull().defaultNow(),
      /** Ascending. */
      eventIds: uuid('event_ids').array().notNull(),
      /** The duration of each event's handler, in the order of `event_ids`. */
      durationsMs: real('durations_ms').array().notNull(),
    },
    (table) => [
      index('receipt_batches_events_idx').on(table.subscriptionId, table.eventId, table.lastEventId),
    ],
  )
  .enableRLS()

/** Every receipt: the rows of {@link receipts} and {@link receiptBatches}, one for each event and subscription. A view. */
export const deliveries = busSchema
  .view('deliveries', {
    subscriptionId: integer('subscription_id').notNull(),
    id: uuid('event_id').notNull(),
    attempts: smallint('attempts').notNull(),
    expired: boolean('expired').notNull(),
    durationMs: real('duration_ms').notNull(),
    deliveredAt: time('delivered_at').notNull(),
    erased: boolean('erased'),
    discarded: boolean('discarded'),
  })
  .existing()

/**
 * The attempts at events that did not succeed at once: each failed one, and the one that succeeded after failures. RANGE-partitioned in
 * step with the log.
 */
export const attempts = busSchema
  .table(
    'attempts',
    {
      eventId: uuid('event_id').notNull(),
      subscriptionId: integer('subscription_id').notNull(),
      /** Its number, from 1. */
      attempt: smallint('attempt').notNull(),
      endedAt: time('ended_at').notNull(),
      /** Null if no handler ran. */
      durationMs: real('duration_ms'),
      succeeded: boolean('succeeded').notNull(),
      errorName: text('error_name'),
      errorCode: text('error_code'),
      errorMessage: text('error_message'),
      errorStack: text('error_stack'),
      /** The same for errors that differ only in numbers and quoted text. */
      fingerprint: text('fingerprint'),
      /** The process that made the attempt: an id of `bus.instances` while it runs. */
      instanceId: uuid('instance_id'),
    },
    (table) => [
      primaryKey({ columns: [table.eventId, table.subscriptionId, table.attempt, table.endedAt] }),
      index('attempts_recent_idx').on(table.subscriptionId, table.endedAt),
    ],
  )
  .enableRLS()

/**
 * The events that are failing: one row while an event is retried, is a dead letter, or keeps its key blocked or parked. pg-boss has the
 * work itself; this is the index into it.
 */
export const failing = busSchema.table(
  'failing',
  {
    subscriptionId: integer('subscription_id').notNull(),
    eventId: uuid('event_id').notNull(),
    state: text('state', { enum: ['retrying', 'dead', 'blocked', 'parked'] }).notNull(),
    /** Attempts made. */
    attempts: smallint('attempts').notNull(),
    /** Null for an event that is not in the log. */
    tenantId: text('tenant_id'),
    fingerprint: text('fingerprint'),
    errorName: text('error_name'),
    errorCode: text('error_code'),
    /** The pg-boss job that is retried, or that became the dead letter: its `source_root_id`. */
    jobId: uuid('job_id').notNull(),
    /** The key of an ordered subscription that it holds, in `bus.ordered_keys`. */
    keyId: bigint('key_id', { mode: 'bigint' }),
    /** For a retry. */
    nextAttemptAt: time('next_attempt_at'),
    /** When it failed first. */
    since: time('since').notNull().defaultNow(),
    /** When it failed last. */
    failedAt: time('failed_at').notNull().defaultNow(),
  },
  (table) => [
    primaryKey({ columns: [table.subscriptionId, table.eventId] }),
    check('failing_state_check', sql`${table.state} in ('retrying', 'dead', 'blocked', 'parked')`),
    index('failing_dead_idx')
      .on(table.failedAt, table.eventId)
      .where(sql`${table.state} <> 'retrying'`),
    index('failing_dead_of_subscription_idx')
      .on(table.subscriptionId, table.failedAt, table.eventId)
      .where(sql`${table.state} <> 'retrying'`),
    index('failing_errors_idx').on(table.subscriptionId, table.state, table.fingerprint, table.failedAt),
    index('failing_fingerprint_idx')
      .on(table.fingerprint, table.failedAt, table.eventId)
      .where(sql`${table.state} <> 'retrying'`),
    index('failing_tenant_idx').on(table.tenantId, table.failedAt),
    index('failing_due_idx')
      .on(table.nextAttemptAt)
      .where(sql`${table.state} = 'retrying'`),
    tenantReads(),
  ],
)

/**
 * What each process did in each minute, for a subscription. Subscription 0 counts what was published. They are statistics: a process that
 * crashes takes its last seconds with it.
 */
export const rollups = busSchema
  .table(
    'rollups',
    {
      minute: time('minute').notNull(),
      subscriptionId: integer('subscription_id').notNull(),
      instanceId: uuid('instance_id').notNull(),
      published: integer('published').notNull().default(0),
      delivered: integer('delivered').notNull().default(0),
      /** Failed attempts. */
      failed: integer('failed').notNull().default(0),
      dead: integer('dead').notNull().default(0),
      expired: integer('expired').notNull().default(0),
      /** How many handlers began after how long a wait: a count for each power of the square root of two, from 1 ms. */
      waitBins: integer('wait_bins').array().notNull(),
      /** The same for how long handlers ran. */
      runBins: integer('run_bins').array().notNull(),
    },
    (table) => [primaryKey({ columns: [table.minute, table.subscriptionId, table.instanceId] })],
  )
  .enableRLS()

/** The events in the log that are for one subscription alone: edited copies of its dead letters. */
export const eventCopies = busSchema
  .table(
    'event_copies',
    {
      eventId: uuid('event_id').primaryKey(),
      subscriptionId: integer('subscription_id').notNull(),
      originalId: uuid('original_id').notNull(),
      createdAt: time('created_at').notNull().defaultNow(),
    },
    (table) => [index('event_copies_original_idx').on(table.originalId)],
  )
  .enableRLS()

/** The dead letters that the callback of their subscription is to be told of: a row until it has been. */
export const deadLetterCalls = busSchema
  .table(
    'dead_letter_calls',
    {
      subscriptionId: integer('subscription_id').notNull(),
      eventId: uuid('event_id').notNull(),
      deadAt: time('dead_at').notNull().defaultNow(),
      state: text('state', { enum: ['dead', 'blocked', 'parked'] }).notNull(),
      attempts: smallint('attempts').notNull(),
      tenantId: text('tenant_id'),
      /** How often the callback failed. */
      errorCount: integer('error_count').notNull().default(0),
      /** When any process may call it. While a process does, a minute ahead: should it crash, another one calls. */
      nextCallAt: time('next_call_at').notNull().defaultNow(),
    },
    (table) => [
      primaryKey({ columns: [table.subscriptionId, table.eventId, table.deadAt] }),
      index('dead_letter_calls_due_idx').on(table.subscriptionId, table.nextCallAt),
    ],
  )
  .enableRLS()

/** When a subscription last had more dead letters than its alert allows. */
export const deadLetterAlerts = busSchema
  .table('dead_letter_alerts', {
    subscriptionId: integer('subscription_id').primaryKey(),
    raisedAt: time('raised_at').notNull().defaultNow(),
    /** When the oldest of the dead letters that raised it became one. */
    firstAt: time('first_at').notNull(),
    errorCount: integer('error_count').notNull().default(0),
    /** As in {@link deadLetterCalls}. Null once the callback has been told. */
    nextCallAt: time('next_call_at'),
  })
  .enableRLS()

/**
 * A replay to a subscription. In the ledger its id, which is below 0, stands for the subscription: what becomes of an event in a replay is
 * recorded beside what became of it first. Rows are never deleted, because receipts refer to them.
 */
export const replays = busSchema
  .table(
    'replays',
    {
      id: integer('id').primaryKey(),
      operationId: uuid('operation_id').notNull(),
      subscriptionId: integer('subscription_id').notNull(),
    },
    (table) => [
      unique('replays_operation_subscription_unique').on(table.operationId, table.subscriptionId),
      check('replays_id_check', sql`${table.id} < 0`),
    ],
  )
  .enableRLS()

/** What became of replayed events: a row for each settlement, until a part of the operation adds it to its counts. */
export const replayOutcomes = busSchema
  .table(
    'replay_outcomes',
    {
      replayId: integer('replay_id').notNull(),
      delivered: integer('delivered').notNull().default(0),
      /** Those that were erased among them. */
      expired: integer('expired').notNull().default(0),
      dead: integer('dead').notNull().default(0),
    },
    (table) => [index('replay_outcomes_replay_idx').on(table.replayId)],
  )
  .enableRLS()

const counts = {
  published: bigint('published', { mode: 'number' })
    .notNull()
    .default(sql`0`),
  delivered: bigint('delivered', { mode: 'number' })
    .notNull()
    .default(sql`0`),
  /** Failed attempts. */
  failed: bigint('failed', { mode: 'number' })
    .notNull()
    .default(sql`0`),
  dead: bigint('dead', { mode: 'number' })
    .notNull()
    .default(sql`0`),
  expired: bigint('expired', { mode: 'number' })
    .notNull()
    .default(sql`0`),
}

/** The sums of {@link rollups} for each hour that is over. */
export const hourlyRollups = busSchema
  .table(
    'hourly_rollups',
    {
      hour: time('hour').notNull(),
      subscriptionId: integer('subscription_id').notNull(),
      ...counts,
      waitBins: bigint('wait_bins', { mode: 'number' }).array().notNull(),
      runBins: bigint('run_bins', { mode: 'number' }).array().notNull(),
    },
    (table) => [primaryKey({ columns: [table.hour, table.subscriptionId] })],
  )
  .enableRLS()

/**
 * What all processes did in each hour, by tenant. Of one minute of a process the thousand largest tenants are counted; the others are
 * together in the row of the empty tenant.
 */
export const tenantRollups = busSchema.table(
  'tenant_rollups',
  {
    hour: time('hour').notNull(),
    tenantId: text('tenant_id').notNull(),
    ...counts,
  },
  (table) => [
    primaryKey({ columns: [table.hour, table.tenantId] }),
    index('tenant_rollups_tenant_idx').on(table.tenantId, table.hour),
    tenantReads(),
  ],
)
