// A reminder that is sent later, unless the payment comes first.
import { eq, sql } from 'drizzle-orm'
import { pgTable, text, uuid } from 'drizzle-orm/pg-core'
import { z } from 'zod'
import { createBus, defineEvents, mergeEvents } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events as paymentEvents } from './events.ts'

const events = mergeEvents(
  paymentEvents,
  defineEvents({ 'invoice.reminder': { schema: z.object({ paymentId: z.string() }) } }),
)
const reminders = pgTable('reminders', {
  paymentId: text('payment_id').primaryKey(),
  eventId: uuid('event_id'),
})

export async function run({ url, db }: Environment) {
  await db.execute(sql`create table reminders (payment_id text primary key, event_id uuid)`)
  const reminded = Promise.withResolvers<string>()
  const bus = createBus({ database: url, events, source: 'invoices', defaults: { tenantId: 'acme' } })

  async function sendInvoice(paymentId: string): Promise<void> {
    await db.transaction(async (tx) => {
      const { id } = await bus.publish(tx, {
        type: 'invoice.reminder',
        payload: { paymentId },
        availableIn: { seconds: 1 },
      })
      await tx.insert(reminders).values({ paymentId, eventId: id })
    })
  }

  /** The payment and the end of its reminder commit together. Gives whether there was one to cancel. */
  async function receivePayment(paymentId: string): Promise<boolean> {
    return db.transaction(async (tx) => {
      const [reminder] = await tx.delete(reminders).where(eq(reminders.paymentId, paymentId)).returning()
      await bus.publish(tx, { type: 'payment.paid', payload: { paymentId, amountCents: 4200 } })
      return reminder?.eventId == null ? false : bus.cancel(tx, reminder.eventId)
    })
  }

  bus.subscribe({
    name: 'remind',
    events: ['invoice.reminder'],
    handler: ({ payload }) => reminded.resolve(payload.paymentId),
  })
  await bus.start()
  await sendInvoice('paid-in-time')
  await sendInvoice('forgotten')
  const cancelled = await receivePayment('paid-in-time')
  const first = await reminded.promise
  const tooLate = await receivePayment('forgotten')
  await bus.stop()
  return { cancelled, reminded: first, tooLate }
}
