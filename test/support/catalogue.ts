import { z } from 'zod'
import { defineEvents } from '../../src/index.ts'

/** The catalogue most tests use. */
export const paymentEvents = defineEvents({
  'payment.paid': { schema: z.object({ paymentId: z.string(), amountCents: z.number().int() }) },
  'payment.refunded': { schema: z.object({ paymentId: z.string() }) },
  'usage.billed': { schema: z.object({ units: z.number() }), sources: ['billing'] },
  note: { schema: z.unknown() },
})
