import { expect, test } from 'vitest'
import { createTestDatabase, until } from './support/database.ts'
import { testBus } from './support/bus.ts'

test('an event published in a transaction reaches its handler', async () => {
  const { url, db, count } = await createTestDatabase()
  const bus = testBus(url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['payment.paid'], handler: (event) => void seen.push(event.payload) })
  await bus.start()
  await db.transaction(async (tx) => {
    await bus.publish(tx, {
      type: 'payment.paid',
      tenantId: 'acme',
      payload: { paymentId: 'p1', amountCents: 100 },
    })
  })
  await until('the handler ran', () => seen.length === 1)
  expect(seen).toEqual([{ paymentId: 'p1', amountCents: 100 }])
  await until('the receipt is there', async () => (await count('select count(*) from bus.deliveries')) === 1)
  expect(await count('select count(*) from bus.outbox')).toBe(0)
})
