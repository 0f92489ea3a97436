// Two kinds of workers of one service: each runs its own subscriptions, all declare all of them.
import { createBus } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

type Handle = (worker: string, subscription: string) => void

function makeBus(url: string, worker: string, handle: Handle) {
  const bus = createBus({ database: url, events, source: 'payment-service' })
  bus.subscribe({
    name: 'send-mail',
    events: ['payment.paid'],
    concurrency: 50,
    handler: () => handle(worker, 'send-mail'),
  })
  bus.subscribe({
    name: 'render-pdf',
    events: ['payment.paid'],
    concurrency: 2,
    handler: () => handle(worker, 'render-pdf'),
  })
  return bus
}

export async function run({ url, db }: Environment): Promise<string[]> {
  const handled: string[] = []
  const all = Promise.withResolvers<void>()
  const handle: Handle = (worker, subscription) => {
    if (handled.push(`${subscription} in ${worker}`) === 2) all.resolve()
  }
  const mails = makeBus(url, 'mails', handle)
  const documents = makeBus(url, 'documents', handle)
  // As a command line or the environment says: node worker.ts send-mail
  await mails.start({ run: ['send-mail'] })
  await documents.start({ run: ['render-pdf'] })
  await db.transaction(async (tx) =>
    mails.publish(tx, {
      type: 'payment.paid',
      tenantId: 'acme',
      payload: { paymentId: '42', amountCents: 4200 },
    }),
  )
  await all.promise
  await Promise.all([mails.stop(), documents.stop()])
  return handled.toSorted()
}
