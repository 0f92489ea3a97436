// An audit trail of everything that is published, written once in the same database.
import { sql } from 'drizzle-orm'
import { jsonb, pgTable, text, uuid } from 'drizzle-orm/pg-core'
import { createBus, defineSubscription } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

const auditTrail = pgTable('audit_trail', {
  eventId: uuid('event_id').primaryKey(),
  tenantId: text('tenant_id').notNull(),
  type: text().notNull(),
  payload: jsonb().notNull(),
})

const written = Promise.withResolvers<void>()
const audit = defineSubscription(events, {
  name: 'audit',
  events: ['**'],
  mode: 'exactly-once',
  handler: async ({ id, tenantId, type, payload }, { tx }) => {
    await tx.insert(auditTrail).values({ eventId: id, tenantId, type, payload })
    if (type === 'case.opened') written.resolve()
  },
})

export async function run({ url, db }: Environment) {
  await db.execute(
    sql`create table audit_trail (event_id uuid primary key, tenant_id text not null, type text not null, payload jsonb not null)`,
  )
  const bus = createBus({ database: url, events, source: 'payment-service' })
  bus.subscribe(audit)
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publishMany(tx, [
      { type: 'payment.paid', tenantId: 'acme', payload: { paymentId: '42', amountCents: 4200 } },
      { type: 'case.opened', tenantId: 'acme', payload: { caseId: 'case-42', paymentId: '42' } },
    ]),
  )
  await written.promise
  await bus.stop() // lets the transaction of the handler commit
  const rows = await db.select().from(auditTrail).orderBy(auditTrail.eventId)
  return rows.map(({ tenantId, type, payload }) => ({ tenantId, type, payload }))
}
