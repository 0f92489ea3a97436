// A script for operators: what was given up, why, and what became of it elsewhere. It starts nothing.
import { createBus, defineSubscription } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

const sendReceipt = defineSubscription(events, {
  name: 'send-receipt',
  events: ['payment.paid'],
  retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
  handler: () => {
    throw new Error('The mail server says no')
  },
})

/** One line for each dead letter. */
async function report(url: string): Promise<string[]> {
  const bus = createBus({ database: url, events, source: 'operations' })
  try {
    const lines: string[] = []
    for (const { id, subscription, attempts, failures } of await bus.deadLetters.list()) {
      const event = await bus.events.get(id)
      const elsewhere = (await bus.deliveries(id)).filter(
        (delivery) => delivery.subscription !== subscription,
      )
      const others = elsewhere.map((delivery) => `${delivery.subscription} ${delivery.state}`).join(', ')
      lines.push(
        `${subscription} gave up ${event?.type} of ${event?.tenantId} after ${attempts} attempts: ${failures.at(-1)?.message} (${others})`,
      )
    }
    return lines
  } finally {
    await bus.stop()
  }
}

export async function run({ url, db }: Environment): Promise<string[]> {
  const bus = createBus({ database: url, events, source: 'payment-service' })
  bus.subscribe(sendReceipt)
  bus.subscribe({ name: 'open-case', events: ['payment.paid'], handler: () => {} })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publish(tx, {
      type: 'payment.paid',
      tenantId: 'acme',
      payload: { paymentId: '42', amountCents: 4200 },
    }),
  )
  let lines: string[] = []
  while (!(lines.length === 1 && lines[0]?.includes('delivered') === true)) lines = await report(url)
  await bus.stop()
  return lines
}
