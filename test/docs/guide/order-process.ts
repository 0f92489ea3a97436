import { and, eq } from 'drizzle-orm'
import { boolean, pgTable, primaryKey, text, uuid } from 'drizzle-orm/pg-core'
import { z } from 'zod'
import { defineEvents, type Bus } from '../../../src/index.ts'

const schema = z.object({ orderId: z.string() })
export const events = defineEvents({
  'payment.paid': { schema },
  'parcel.shipped': { schema },
  'order.time-is-up': { schema }, // the timer, which the process sets for itself
  'order.completed': { schema },
  'order.overdue': { schema },
})

/** One row for each order: what has come, the timer that runs, how it ended. */
export const processes = pgTable(
  'order_processes',
  {
    tenantId: text('tenant_id').notNull(),
    orderId: text('order_id').notNull(),
    isPaid: boolean('is_paid').notNull().default(false),
    isShipped: boolean('is_shipped').notNull().default(false),
    timerId: uuid('timer_id'),
    outcome: text('outcome', { enum: ['completed', 'overdue'] }),
  },
  (table) => [primaryKey({ columns: [table.tenantId, table.orderId] })],
)

/** Payment and parcel of an order must both have come within the time, counted from the first of them. */
export function superviseOrders(bus: Bus<typeof events>, timeLimitMs = 24 * 60 * 60 * 1000): void {
  bus.subscribe({
    name: 'order-process',
    events: ['payment.paid', 'parcel.shipped', 'order.time-is-up'],
    ordered: true,
    mode: 'exactly-once',
    handler: async ({ type, tenantId, payload, createdAt }, { tx, publish }) => {
      const { orderId } = payload
      const ofOrder = { tenantId, orderingKey: orderId, payload }
      const isThis = and(eq(processes.tenantId, tenantId), eq(processes.orderId, orderId))
      await tx.insert(processes).values({ tenantId, orderId }).onConflictDoNothing()
      const [before] = await tx.select().from(processes).where(isThis)
      if (before === undefined || before.outcome !== null) return // it has ended: what comes late changes nothing
      if (type === 'order.time-is-up') {
        await tx.update(processes).set({ outcome: 'overdue' }).where(isThis)
        await publish({ type: 'order.overdue', ...ofOrder })
        return
      }
      const state = { ...before, ...(type === 'payment.paid' ? { isPaid: true } : { isShipped: true }) }
      if (state.isPaid && state.isShipped) {
        state.outcome = 'completed'
        if (state.timerId !== null) await bus.cancel(tx, state.timerId)
        await publish({ type: 'order.completed', ...ofOrder })
      } else if (state.timerId === null) {
        const availableAt = new Date(createdAt.getTime() + timeLimitMs)
        const timer = await publish({ type: 'order.time-is-up', ...ofOrder, availableAt })
        state.timerId = timer.id
      }
      await tx.update(processes).set(state).where(isThis)
    },
  })
}
