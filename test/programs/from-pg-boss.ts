// From pg-boss: a job for each receiver becomes one event, which each receiver subscribes to.
import { createBus } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

export async function run({ url, db }: Environment) {
  const done: string[] = []
  const all = Promise.withResolvers<void>()
  const note = (line: string): void => {
    if (done.push(line) === 2) all.resolve()
  }
  const bus = createBus({
    database: url,
    events,
    source: 'payment-service',
    defaults: { tenantId: 'main' },
  })

  // Was: boss.createQueue('open-case', { retryLimit: 3, retryDelay: 5, retryBackoff: true, expireInSeconds: 30 })
  //      boss.work('open-case', { batchSize: 5 }, async ([job]) => …)
  bus.subscribe({
    name: 'open-case',
    events: ['payment.paid'],
    concurrency: 5,
    timeoutSeconds: 30,
    retry: { maxAttempts: 4, delaySeconds: 5 }, // the first attempt counts
    handler: ({ payload }, { attempt }) => note(`open-case ${payload.paymentId} ${attempt}`),
  })
  // Was: boss.work('send-receipt', …), and a second boss.send
  bus.subscribe({
    name: 'send-receipt',
    events: ['payment.paid'],
    handler: ({ payload }) => note(`send-receipt ${payload.amountCents}`),
  })
  await bus.start()

  // Was: boss.send('open-case', data, { db: fromDrizzle(tx, sql), singletonKey: '42', startAfter: 0 })
  //      boss.send('send-receipt', data, …)
  const payload = { paymentId: '42', amountCents: 4200 }
  const again = await db.transaction(async (tx) => {
    await bus.publish(tx, { type: 'payment.paid', idempotencyKey: '42', payload })
    return bus.publish(tx, { type: 'payment.paid', idempotencyKey: '42', payload })
  })
  await all.promise
  await bus.stop()
  return { done: done.toSorted(), duplicate: again.duplicate }
}
