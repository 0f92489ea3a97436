// A test of service and bus together, on a database of its own: retries without their delays, and a dead letter.
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { defineSubscription } from '../../src/index.ts'
import { createTestBus } from '../../src/testing/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

const openCase = defineSubscription(events, {
  name: 'open-case',
  events: ['payment.paid'],
  handler: async ({ payload: { paymentId, amountCents } }, { publish }) => {
    if (amountCents < 0) throw new Error('A negative amount')
    await publish({ type: 'case.opened', payload: { caseId: `case-${paymentId}`, paymentId } })
  },
})

export async function run({ url }: Environment) {
  await using bus = await createTestBus({ database: url, events, retryDelays: 'skipped' })
  const client = postgres(bus.url)
  const db = drizzle(client)
  bus.subscribe(openCase)
  await bus.start()

  const published = await db.transaction(async (tx) =>
    bus.publishMany(tx, [
      { type: 'payment.paid', tenantId: 'acme', payload: { paymentId: '42', amountCents: 4200 } },
      { type: 'payment.paid', tenantId: 'acme', payload: { paymentId: '43', amountCents: -1 } },
    ]),
  )
  await bus.waitFor(published[0], 'delivered')
  await bus.waitFor({ type: 'payment.paid', payload: { paymentId: '43' } }, 'dead', {
    subscription: 'open-case',
  })
  await bus.drain()

  const opened = await bus.published({ type: 'case.opened' })
  const [dead] = await bus.deadLetters.list()
  await client.end()
  return { cases: opened.map(({ payload }) => payload.caseId), attempts: dead?.attempts }
}
