// A function that publishes two types says so, and takes whatever publishes them: a bus of more events, a handler's context, a fake.
import { createBus, defineEvents, type CallerTransaction, type Publisher } from '../../src/index.ts'
import { createFakePublisher } from '../../src/testing/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

const refundEvents = defineEvents({ 'payment.refunded': events['payment.refunded'] })

async function refund(
  tx: CallerTransaction,
  publisher: Publisher<typeof refundEvents, 'tenantId'>,
  paymentId: string,
): Promise<void> {
  await publisher.publish(tx, { type: 'payment.refunded', payload: { paymentId, amountCents: 4200 } })
}

export async function run({ url, db }: Environment) {
  const refunded = new Set<string>()
  const both = Promise.withResolvers<void>()
  const bus = createBus({ database: url, events, source: 'payment-service' })
  bus.subscribe({
    name: 'refund-cases',
    events: ['case.opened'],
    mode: 'exactly-once',
    handler: async ({ payload }, ctx) => refund(ctx.tx, ctx, payload.paymentId),
  })
  bus.subscribe({
    name: 'count-refunds',
    events: ['payment.refunded'],
    handler: ({ payload }) => {
      if (refunded.add(payload.paymentId).size === 2) both.resolve()
    },
  })
  await bus.start()

  await db.transaction(async (tx) => {
    const publisher = bus.with({ tenantId: 'acme' })
    await publisher.publish(tx, { type: 'case.opened', payload: { caseId: 'c', paymentId: 'by-handler' } })
    await refund(tx, publisher, 'by-service')
  })
  await both.promise
  await bus.stop()

  const fake = createFakePublisher(refundEvents, { defaults: { tenantId: 'test' } })
  await db.transaction(async (tx) => refund(tx, fake, 'by-test'))
  return {
    stored: [...refunded].toSorted(),
    faked: fake.published.map(({ payload }) => payload.paymentId),
  }
}
