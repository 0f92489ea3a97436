// Repositories take the transaction of their caller, on whatever driver it is.
import { eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { integer, pgTable, text } from 'drizzle-orm/pg-core'
import pg from 'pg'
import { createBus, type BusTransaction, type Publisher } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

const payments = pgTable('payments', {
  id: text().primaryKey(),
  tenantId: text('tenant_id').notNull(),
  amountCents: integer('amount_cents').notNull(),
  status: text({ enum: ['open', 'paid'] }).notNull(),
})
type Payment = typeof payments.$inferSelect

function paymentRepository(publisher: Publisher<typeof events>) {
  return {
    async add(tx: BusTransaction, payment: Omit<Payment, 'status'>): Promise<void> {
      await tx.insert(payments).values({ ...payment, status: 'open' })
    },
    async markPaid(tx: BusTransaction, id: string): Promise<Payment> {
      const [payment] = await tx
        .update(payments)
        .set({ status: 'paid' })
        .where(eq(payments.id, id))
        .returning()
      if (payment === undefined) throw new Error('There is no such payment')
      const { tenantId, amountCents } = payment
      await publisher.publish(tx, { type: 'payment.paid', tenantId, payload: { paymentId: id, amountCents } })
      return payment
    },
  }
}

export async function run({ url, db }: Environment): Promise<{ status: string; published: number }> {
  await db.execute(
    sql`create table payments (id text primary key, tenant_id text not null, amount_cents int not null, status text not null)`,
  )
  const bus = createBus({ database: url, events, source: 'payment-service' })
  const repository = paymentRepository(bus)

  // In postgres.js, with a savepoint around a part that may fail.
  await db.transaction(async (tx) => {
    await repository.add(tx, { id: '1', tenantId: 'acme', amountCents: 4200 })
    await tx.transaction(async (savepoint) => repository.markPaid(savepoint, '1'))
  })

  // In node-postgres.
  const pool = new pg.Pool({ connectionString: url })
  const { status } = await drizzle(pool).transaction(async (tx) => {
    await repository.add(tx, { id: '2', tenantId: 'acme', amountCents: 100 })
    return repository.markPaid(tx, '2')
  })
  await pool.end()

  const published = await bus.tenant('acme').events.find({ type: 'payment.paid' })
  await bus.stop()
  return { status, published: published.length }
}
