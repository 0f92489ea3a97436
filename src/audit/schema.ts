import { sql } from 'drizzle-orm'
import { check, index, jsonb, text, timestamp, uuid } from 'drizzle-orm/pg-core'
import { busSchema } from '../outbox/schema/schema.ts'

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })

/** Every change by a person or a program: one row each, written in the transaction of the change, before it. */
export const audit = busSchema
  .table(
    'audit',
    {
      id: uuid('id')
        .primaryKey()
        .default(sql`bus.uuid_v7()`),
      at: time('at')
        .notNull()
        .default(sql`clock_timestamp()`),
      /** The person or program: `by` of the call, or the service that made it. */
      actor: text('actor').notNull(),
      /** What was done, such as `subscriptions.pause`. */
      action: text('action').notNull(),
      /** The name of the subscription, if it concerns one. */
      subscription: text('subscription'),
      /** The tenant, if it concerns one. */
      tenantId: text('tenant_id'),
      /** The event, if it concerns one. */
      eventId: uuid('event_id'),
      /** The row of `bus.operations` that does the work. */
      operationId: uuid('operation_id'),
      reason: text('reason'),
      /** Which events or rows it is about, as the caller named them. */
      selection: jsonb('selection'),
      /** What was changed, from what to what. */
      change: jsonb('change'),
      /** What a dry run counted before. */
      expected: jsonb('expected'),
      /** What came of it. Null while it is under way, and where there is nothing to say. */
      outcome: jsonb('outcome'),
      finishedAt: time('finished_at'),
    },
    (table) => [
      index('audit_subscription_idx')
        .on(table.subscription, table.id)
        .where(sql`${table.subscription} is not null`),
      index('audit_event_idx')
        .on(table.eventId, table.id)
        .where(sql`${table.eventId} is not null`),
      index('audit_operation_idx')
        .on(table.operationId)
        .where(sql`${table.operationId} is not null`),
      index('audit_rename_idx')
        .on(table.id)
        .where(sql`${table.action} = 'subscriptions.rename'`),
      check(
        'audit_text_lengths',
        sql`char_length(actor) between 1 and 255 and char_length(action) between 1 and 100 and char_length(reason) <= 2000`,
      ),
    ],
  )
  .enableRLS()
