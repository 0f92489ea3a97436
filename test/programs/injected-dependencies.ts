// A handler that gets what it needs from outside: a function makes the subscription.
import { createBus, defineSubscription } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

interface Mailer {
  send(mail: { to: string; subject: string; signal: AbortSignal }): Promise<void>
}

function sendReceipt({ mailer, accountsOf }: { mailer: Mailer; accountsOf: (tenantId: string) => string }) {
  return defineSubscription(events, {
    name: 'send-receipt',
    events: ['payment.paid'],
    handler: async ({ payload, tenantId }, { signal }) => {
      await mailer.send({ to: accountsOf(tenantId), subject: `Receipt ${payload.paymentId}`, signal })
    },
  })
}

export async function run({ url, db }: Environment): Promise<string> {
  const sent = Promise.withResolvers<string>()
  const mailer: Mailer = {
    send: async ({ to, subject }) => sent.resolve(`${to}: ${subject}`),
  }
  const bus = createBus({ database: url, events, source: 'payment-service' })
  bus.subscribe(sendReceipt({ mailer, accountsOf: (tenantId) => `accounts@${tenantId}.example` }))
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publish(tx, {
      type: 'payment.paid',
      tenantId: 'acme',
      payload: { paymentId: '42', amountCents: 4200 },
    }),
  )
  const mail = await sent.promise
  await bus.stop()
  return mail
}
