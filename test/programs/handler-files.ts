// Each subscription in a file of its own, an index beside them, and a loop that subscribes them all.
import { setTimeout } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { createBus } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'
import * as handlers from './handlers/index.ts'

export async function run({ url, db }: Environment): Promise<{ subscriptions: string[]; cents: unknown }> {
  await db.execute(sql`create table bookings (payment_id text, cents int)`)
  const done = Promise.withResolvers<void>()
  const bus = createBus({ database: url, events, source: 'payment-service' })
  for (const subscription of Object.values(handlers)) bus.subscribe(subscription)
  bus.subscribe({ name: 'done', events: ['case.opened'], handler: () => done.resolve() })
  await bus.start()

  const payload = { paymentId: '42', amountCents: 4200 }
  await db.transaction(async (tx) =>
    bus.publishMany(tx, [
      { type: 'payment.paid', tenantId: 'acme', payload },
      { type: 'payment.refunded', tenantId: 'acme', payload: { ...payload, amountCents: 200 } },
    ]),
  )
  await done.promise
  const booked = async (): Promise<{ count: number; cents: number } | undefined> => {
    const [row] = await db.execute<{ count: number; cents: number }>(
      sql`select count(*)::int as count, sum(cents)::int as cents from bookings`,
    )
    return row
  }
  let row = await booked()
  for (; row?.count !== 2; row = await booked()) await setTimeout(10)
  await bus.stop()
  return { subscriptions: Object.values(handlers).map(({ name }) => name), cents: row?.cents }
}
