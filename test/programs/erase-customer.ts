// A customer asks to be forgotten: everything that was published about them becomes a tombstone.
import { createBus } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

export async function run({ url, db }: Environment) {
  const bus = createBus({ database: url, events, source: 'payment-service', defaults: { tenantId: 'acme' } })
  const ids = await db.transaction(async (tx) => {
    const published = await bus.publishMany(
      tx,
      [7, 8].map((customer) => ({
        type: 'payment.paid',
        subject: `customers/${customer}`,
        payload: { paymentId: `of-${customer}`, amountCents: 4200 },
      })),
    )
    return published.map(({ id }) => id)
  })
  const { eventCount } = await bus.erase({
    tenantId: 'acme',
    subject: 'customers/7',
    by: 'dpo@example.org',
    reason: 'asked by mail',
  })
  const payloads = await Promise.all(ids.map(async (id) => (await bus.events.get(id))?.payload))
  const [erasure] = await bus.erasures.list()
  await bus.stop()
  return { eventCount, payloads, by: erasure?.by }
}
