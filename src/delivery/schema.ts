import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  integer,
  jsonb,
  primaryKey,
  real,
  smallint,
  text,
  timestamp,
  uuid,
} from 'drizzle-orm/pg-core'
import { busSchema } from '../outbox/schema.ts'

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
  startPosition: uuid('start_position')
    .notNull()
    .default(sql`bus.uuid_v7()`),
  pausedAt: time('paused_at'),
  createdAt: time('created_at').notNull().defaultNow(),
  updatedAt: time('updated_at').notNull().defaultNow(),
})

/** The ledger: one receipt for each event and subscription that is done: delivered, or expired. RANGE-partitioned in step with the log. */
export const deliveries = busSchema.table(
  'deliveries',
  {
    subscriptionId: integer('subscription_id').notNull(),
    eventId: uuid('event_id').notNull(),
    /** Attempts that were made: the one that succeeded is the last; of an expired event, all have failed, if there were any. */
    attempts: smallint('attempts').notNull(),
    /** Its time had passed before it was delivered: the handler was not called (again). */
    expired: boolean('expired').notNull().default(false),
    durationMs: real('duration_ms').notNull(),
    deliveredAt: time('delivered_at').notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.subscriptionId, table.eventId] })],
)
