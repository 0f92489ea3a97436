import { z } from 'zod'
import { defineEvents, type Bus } from '../index.ts'

/** Every event of the payments service. */
export const events = defineEvents({
  'payment.paid': {
    schema: z.object({
      paymentId: z.uuid(),
      amountCents: z.int().positive(),
      currency: z.string(),
      verifiedBy: z.string(),
      method: z.string(),
    }),
    sources: ['payment-service'],
  },
})

// In a service of your own: declare module 'bossbus/fastify'.
declare module '../fastify/index.ts' {
  interface RegisteredBus {
    bus: Bus<typeof events>
  }
}
