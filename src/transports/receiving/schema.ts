import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  check,
  customType,
  index,
  integer,
  jsonb,
  text,
  timestamp,
  unique,
  uuid,
} from 'drizzle-orm/pg-core'
import { busSchema } from '../../outbox/schema/schema.ts'

const time = (name: string) => timestamp(name, { withTimezone: true, precision: 6 })
const bytes = customType<{ data: Uint8Array }>({ dataType: () => 'bytea' })

/** Messages of other systems that could not become events, as they came: one row each, however often it is delivered. */
export const quarantinedMessages = busSchema
  .table(
    'quarantined_messages',
    {
      id: uuid('id')
        .primaryKey()
        .default(sql`bus.uuid_v7()`),
      /** The name that was given to `bus.receive`. */
      receiver: text('receiver').notNull(),
      /** The id that its system gave the message, or a hash of it; without one, a hash of the message. */
      messageId: text('message_id').notNull(),
      /** False if its system gave it none. */
      hasId: boolean('has_id').notNull(),
      /** `new`, `retrying` (a process that runs the receiver will try it), `stored` or `discarded`. */
      state: text('state').notNull().default('new'),
      /** Why it is here: a code of docs/errors.md, and what was wrong. */
      code: text('code').notNull(),
      reason: text('reason').notNull(),
      /** The topic, queue, stream or path. */
      receivedFrom: text('received_from').notNull(),
      /** How its system carries the attributes of CloudEvents. */
      protocol: text('protocol'),
      contentType: text('content_type'),
      messageKey: text('message_key'),
      headers: jsonb('headers').notNull().default({}),
      /** At most its first 16 MiB. */
      body: bytes('body').notNull(),
      /** How many bytes it had. */
      bodyBytes: bigint('body_bytes', { mode: 'number' }).notNull(),
      /** Whether something of the message is not stored: it cannot be tried again. */
      isCut: boolean('is_cut').notNull().default(false),
      /** How often its system has delivered it. */
      receivedCount: integer('received_count').notNull().default(1),
      receivedAt: time('received_at').notNull().defaultNow(),
      lastReceivedAt: time('last_received_at').notNull().defaultNow(),
      /** Who has had it tried again or discarded, and why. */
      decidedBy: text('decided_by'),
      decidedReason: text('decided_reason'),
      decidedAt: time('decided_at'),
      /** The events that it has become. */
      eventIds: uuid('event_ids').array(),
    },
    (table) => [
      unique('quarantined_messages_receiver_message_id_key').on(table.receiver, table.messageId),
      index('quarantined_messages_state_idx').on(table.state, table.id),
      check('quarantined_messages_state_check', sql`state in ('new', 'retrying', 'stored', 'discarded')`),
      check(
        'quarantined_messages_lengths',
        sql`char_length(receiver) between 1 and 100 and char_length(message_id) between 1 and 255 and char_length(code) between 1 and 100
    and char_length(reason) <= 2100 and char_length(received_from) <= 1024 and char_length(content_type) <= 255 and char_length(message_key) <= 1024
    and octet_length(body) <= 16777216 and char_length(decided_by) between 1 and 255 and char_length(decided_reason) <= 2000`,
      ),
    ],
  )
  .enableRLS()
