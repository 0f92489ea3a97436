// A provider's webhook, which may come twice: the provider's own id is the idempotency key.
import { z } from 'zod'
import { createBus } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

const notification = z.object({
  id: z.string(),
  kind: z.literal('charge.succeeded'),
  charge: z.object({ reference: z.string(), amount: z.number() }),
})

export async function run({ url, db }: Environment) {
  const bus = createBus({ database: url, events, source: 'payment-service' })

  async function receive(body: unknown, account: string) {
    const { id, charge } = notification.parse(body)
    const { duplicate } = await db.transaction(async (tx) =>
      bus.publish(tx, {
        type: 'payment.paid',
        tenantId: account,
        idempotencyKey: `provider/${id}`,
        payload: { paymentId: charge.reference, amountCents: Math.round(charge.amount * 100) },
      }),
    )
    return { status: duplicate ? 200 : 202 }
  }

  const body = { id: 'evt_1', kind: 'charge.succeeded', charge: { reference: '42', amount: 42.5 } }
  const answers = [await receive(body, 'acme'), await receive(body, 'acme'), await receive(body, 'zeta')]
  const stored = await bus.events.find({ type: 'payment.paid' })
  await bus.stop()
  return {
    statuses: answers.map(({ status }) => status),
    stored: stored.map(({ tenantId }) => tenantId).toSorted(),
  }
}
