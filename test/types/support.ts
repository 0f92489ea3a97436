import { type } from 'arktype'
import * as v from 'valibot'
import { z } from 'zod'
import { defineEvents, type Bus } from '../../src/index.ts'

/** A catalogue whose schemas take one type and give another, of each library. */
export const events = defineEvents({
  'payment.paid': {
    schema: z.object({ cents: z.coerce.number<string>(), currency: z.string().default('EUR') }),
    sources: ['payment-service'],
  },
  'payment.refunded': {
    schema: z.object({ id: z.string() }),
    version: 2,
    upcast: { 1: (v1: { paymentId: string }) => ({ id: v1.paymentId }) },
  },
  'payment.dispute.opened': { schema: v.object({ at: v.pipe(v.string(), v.transform(Number)) }) },
  'order.placed': { schema: type({ total: 'string.numeric.parse' }) },
  note: { schema: z.unknown() },
})

export type Events = typeof events

declare const someBus: Bus<Events>

/** Never run: type tests are compiled only. */
export const bus: Bus<Events> = someBus
