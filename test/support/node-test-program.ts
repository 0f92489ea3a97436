/** A test file for `node --test`, as users without vitest have it: `DATABASE_URL` names the server. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sql } from 'drizzle-orm'
import { crashAtEveryStep, createTestBus } from '../../src/testing/index.ts'
import { paymentEvents } from './catalogue.ts'

const database = process.env['DATABASE_URL'] ?? ''
const paid = {
  type: 'payment.paid',
  tenantId: 'acme',
  payload: { paymentId: '42', amountCents: 4200 },
} as const

await test('a bus for a test', async (context) => {
  const bus = await createTestBus({ database, events: paymentEvents })
  context.after(bus.dispose)
  bus.subscribe({ name: 'plain', events: ['payment.paid'], handler: () => {} })
  await bus.start()
  await bus.tryPublish(paid)
  await bus.drain({ timeoutMs: 20_000 })
  assert.equal((await bus.waitFor({ type: 'payment.paid' }, 'delivered')).tenantId, 'acme')
})

await test('a crash at every step', async () => {
  const { crashes } = await crashAtEveryStep(
    {
      name: 'ledger',
      events: ['payment.paid'],
      mode: 'exactly-once',
      handler: async (_event, { tx }) => void (await tx.execute(sql`insert into entries values (1)`)),
    },
    paid,
    {
      database,
      events: paymentEvents,
      prepare: ({ query }) => query('create table entries (n int)'),
      effects: async ({ query }) => (await query('select from entries')).length,
    },
  )
  assert.ok(crashes.length > 5)
})
