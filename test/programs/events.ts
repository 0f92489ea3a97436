import { z } from 'zod'
import { defineEvents } from '../../src/index.ts'

/** The events of the payments service, which most of these programs are parts of. */
export const events = defineEvents({
  'payment.paid': { schema: z.object({ paymentId: z.string(), amountCents: z.number().int() }) },
  'payment.refunded': { schema: z.object({ paymentId: z.string(), amountCents: z.number().int() }) },
  'case.opened': { schema: z.object({ caseId: z.string(), paymentId: z.string() }) },
})
