// The payload has changed: what was stored before is led to the newest shape, handlers know that one alone.
import { z } from 'zod'
import { createBus, defineEvents } from '../../src/index.ts'
import type { Environment } from './environment.ts'

// As it was when the first events were published.
const eventsOfLastYear = defineEvents({
  'payment.paid': { schema: z.object({ paymentId: z.string(), amount: z.number() }) },
})
type PaidV1 = z.infer<(typeof eventsOfLastYear)['payment.paid']['schema']>

const events = defineEvents({
  'payment.paid': {
    version: 2,
    schema: z.object({ paymentId: z.string(), amountCents: z.number().int() }),
    upcast: {
      1: ({ paymentId, amount }: PaidV1) => ({ paymentId, amountCents: Math.round(amount * 100) }),
    },
  },
})

export async function run({ url, db }: Environment) {
  const tenantId = 'acme'
  const before = createBus({ database: url, events: eventsOfLastYear, source: 'payment-service' })
  const now = createBus({ database: url, events, source: 'payment-service' })
  await db.transaction(async (tx) => {
    await before.publish(tx, { type: 'payment.paid', tenantId, payload: { paymentId: '1', amount: 42.5 } })
    await now.publish(tx, { type: 'payment.paid', tenantId, payload: { paymentId: '2', amountCents: 100 } })
  })

  const amounts: number[] = []
  const both = Promise.withResolvers<void>()
  now.subscribe({
    name: 'sum',
    events: ['payment.paid'],
    handler: ({ payload }) => {
      if (amounts.push(payload.amountCents) === 2) both.resolve()
    },
  })
  await now.start()
  await both.promise
  await Promise.all([before.stop(), now.stop()])
  return amounts.toSorted((a, b) => a - b)
}
