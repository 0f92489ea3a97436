import { z } from 'zod'
import { defineEvents } from '../../src/index.ts'
import type { Transport } from '../../src/transports/index.ts'

/** What is forwarded. */
export const measureEvents = defineEvents({
  'order.placed': { schema: z.object({ number: z.number(), note: z.string() }) },
})

/** A system to measure. */
export interface MeasuredSystem {
  readonly transport: Transport
  /** Fills payloads. */
  readonly note: string
  /** Messages a second of the client alone, as its documentation says. */
  readonly rawRate: (count: number) => Promise<number>
  readonly stop: () => Promise<void>
}
