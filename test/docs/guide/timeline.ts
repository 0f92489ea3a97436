import { eq, sql } from 'drizzle-orm'
import { pgTable, primaryKey, text, uuid, type PgDatabase, type PgQueryResultHKT } from 'drizzle-orm/pg-core'
import { z } from 'zod'
import { defineEvents, type Bus } from '../../../src/index.ts'

export const events = defineEvents({
  'order.changed': { schema: z.object({ orderId: z.string(), status: z.string() }) },
})

/** The read model: what became of each order, in order. */
export const timelines = pgTable(
  'order_timelines',
  {
    tenantId: text('tenant_id').notNull(),
    orderId: text('order_id').notNull(),
    statuses: text('statuses').array().notNull(),
  },
  (table) => [primaryKey({ columns: [table.tenantId, table.orderId] })],
)

/** The events that were copied from the log, and are not to be applied again when they come. */
export const copied = pgTable('order_timelines_copied', { id: uuid('id').primaryKey() })

export interface Change {
  readonly tenantId: string
  readonly payload: { readonly orderId: string; readonly status: string }
}

/** What an event means for the read model, in whichever transaction. */
export async function apply(tx: PgDatabase<PgQueryResultHKT>, { tenantId, payload }: Change): Promise<void> {
  const { orderId, status } = payload
  await tx
    .insert(timelines)
    .values({ tenantId, orderId, statuses: [status] })
    .onConflictDoUpdate({
      target: [timelines.tenantId, timelines.orderId],
      set: { statuses: sql`${timelines.statuses} || excluded.statuses` },
    })
}

export const timelineSubscription = {
  name: 'order-timelines',
  events: ['order.changed'],
  ordered: true,
  mode: 'exactly-once',
} as const

export function keepTimelines(bus: Bus<typeof events>): void {
  bus.subscribe({
    ...timelineSubscription,
    handler: async (event, { tx }) => {
      const [isCopied] = await tx.delete(copied).where(eq(copied.id, event.id)).returning()
      if (isCopied === undefined) await apply(tx, event)
    },
  })
}
