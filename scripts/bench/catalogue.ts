import { z } from 'zod'
import { defineEvents } from '../../src/index.ts'

/** The events that bossbus publishes in every workload, validated like those of any service. */
export const benchEvents = defineEvents({
  'order.placed': { schema: z.object({ number: z.number(), note: z.string() }) },
})
