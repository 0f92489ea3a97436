// CloudEvents of another system: `source` and `id` make the second one a duplicate, what does not fit is the sender's error.
import { BusError, createBus, fromCloudEvent, toCloudEvent } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

export async function run({ url, db }: Environment) {
  const bus = createBus({ database: url, events, source: 'payment-service' })

  async function receive(body: unknown): Promise<number> {
    try {
      const { event } = fromCloudEvent<typeof events>(body, { tenantId: 'acme' })
      const { duplicate } = await db.transaction(async (tx) => bus.publish(tx, event))
      return duplicate ? 200 : 202
    } catch (error) {
      if (error instanceof BusError) return error.statusCode
      throw error
    }
  }

  const cloudEvent = {
    specversion: '1.0',
    id: 'a-1',
    source: '/shop',
    type: 'payment.paid',
    data: { paymentId: '42', amountCents: 4200 },
  }
  const statuses = [
    await receive(cloudEvent),
    await receive(cloudEvent),
    await receive({ ...cloudEvent, id: 'a-2', data: { paymentId: '42' } }),
    await receive({ type: 'payment.paid' }),
  ]

  const sent = Promise.withResolvers<string>()
  bus.subscribe({
    name: 'forward',
    events: ['**'],
    handler: (event) => sent.resolve(JSON.stringify(toCloudEvent(event))),
  })
  await bus.start()
  const forwarded: unknown = JSON.parse(await sent.promise)
  await bus.stop()
  return { statuses, forwarded }
}
