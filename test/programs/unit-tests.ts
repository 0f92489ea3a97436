// Tests of handlers and of code that publishes, without a database.
import assert from 'node:assert/strict'
import { defineSubscription, type CallerTransaction, type Publisher } from '../../src/index.ts'
import { createFakePublisher, runHandler } from '../../src/testing/index.ts'
import { events } from './events.ts'

const openCase = defineSubscription(events, {
  name: 'open-case',
  events: ['payment.paid', 'payment.refunded'],
  handler: async ({ type, payload: { paymentId } }, { publish, attempt }) => {
    if (attempt > 3) throw new Error('Too often')
    const caseId = `${type}-${paymentId}`
    await publish({ type: 'case.opened', payload: { caseId, paymentId } })
    return caseId
  },
})

async function refund(
  tx: CallerTransaction,
  bus: Publisher<typeof events>,
  paymentId: string,
): Promise<void> {
  await bus.publish(tx, {
    type: 'payment.refunded',
    tenantId: 'acme',
    eventId: `refund-${paymentId}`,
    payload: { paymentId, amountCents: 4200 },
  })
}

/** Stands for a transaction: the code under test only hands it on. */
const noTransaction: CallerTransaction = {
  execute: async () => [],
  rollback: () => {
    throw new Error('rolled back')
  },
}

export async function run(): Promise<string[]> {
  const payload = { paymentId: '42', amountCents: 4200 }
  const { published, returned, event } = await runHandler(events, openCase, { type: 'payment.paid', payload })
  assert.equal(returned, 'payment.paid-42')
  assert.equal(published[0]?.causationId, event.id)
  await assert.rejects(
    runHandler(events, openCase, { type: 'payment.refunded', payload }, { attempt: 4 }),
    /Too often/,
  )

  const publisher = createFakePublisher(events)
  await refund(noTransaction, publisher, '42')
  await refund(noTransaction, publisher, '42') // a duplicate
  return [...published, ...publisher.published].map(({ type }) => type)
}
