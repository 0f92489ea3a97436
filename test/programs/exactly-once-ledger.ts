// What a handler writes through `ctx.tx` is there once, whatever fails: a failed attempt leaves nothing.
import { sql } from 'drizzle-orm'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import { createBus, defineSubscription } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

const entries = pgTable('entries', {
  paymentId: text('payment_id').notNull(),
  amountCents: integer('amount_cents').notNull(),
})

const attempts: number[] = []
const ledger = defineSubscription(events, {
  name: 'ledger',
  events: ['payment.paid'],
  mode: 'exactly-once',
  retry: { delaySeconds: 0, backoff: false },
  handler: async ({ payload }, { tx, publish, attempt }) => {
    await tx.insert(entries).values(payload)
    await publish({ type: 'case.opened', payload: { caseId: 'case', paymentId: payload.paymentId } })
    attempts.push(attempt)
    if (attempt < 3) throw new Error('the process could as well have ended here')
  },
})

export async function run({ url, db }: Environment) {
  await db.execute(sql`create table entries (payment_id text not null, amount_cents int not null)`)
  const opened = Promise.withResolvers<void>()
  const bus = createBus({
    database: url,
    events,
    source: 'payment-service',
    drizzle: { schema: { entries } },
  })
  bus.subscribe(ledger)
  bus.subscribe({ name: 'opened', events: ['case.opened'], handler: () => opened.resolve() })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publish(tx, {
      type: 'payment.paid',
      tenantId: 'acme',
      payload: { paymentId: '42', amountCents: 4200 },
    }),
  )
  await opened.promise
  const cases = await bus.events.find({ type: 'case.opened' })
  await bus.stop()
  return { attempts, entries: await db.select().from(entries), caseCount: cases.length }
}
