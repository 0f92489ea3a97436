import { sql } from 'drizzle-orm'
import { defineSubscription } from '../../../src/index.ts'
import { events } from '../events.ts'

/** Refunds are booked as negative amounts. */
export const bookPayment = defineSubscription(events, {
  name: 'book-payment',
  events: ['payment.*'],
  mode: 'exactly-once',
  handler: async ({ type, payload }, { tx }) => {
    const cents = type === 'payment.paid' ? payload.amountCents : -payload.amountCents
    await tx.execute(sql`insert into bookings (payment_id, cents) values (${payload.paymentId}, ${cents})`)
  },
})
