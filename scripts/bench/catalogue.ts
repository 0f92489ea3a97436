import { z } from 'zod'
import { defineEvents } from '../../src/index.ts'

/** The events that bossbus carries in every workload, checked like those of any service. */
export const benchEvents = defineEvents({
  'order.placed': { schema: z.object({ number: z.number(), note: z.string() }) },
})
