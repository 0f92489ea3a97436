import { z } from 'zod'
import { defineEvents } from '../../src/index.ts'

/** What both versions of the service that is deployed know. */
export const shopEvents = defineEvents({
  'order.placed': { schema: z.object({ cents: z.number() }) },
  'order.shipped': { schema: z.object({ cents: z.number() }) },
  'order.refunded': { schema: z.object({ cents: z.number() }) },
})

export type ShopVersion = 1 | 2

/** What each version subscribes to: the second one has a type more, and a predicate that is wider. */
export const variants = {
  1: { events: ['order.placed', 'order.shipped'], where: '$.cents > 100' },
  2: { events: ['order.placed', 'order.shipped', 'order.refunded'], where: '$.cents > 50' },
} as const
