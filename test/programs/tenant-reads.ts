// A customer's page: what one tenant may see, whatever the statement says.
import { count } from 'drizzle-orm'
import { createBus } from '../../src/index.ts'
import { events as log } from '../../src/schema.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

export async function run({ url, db }: Environment) {
  const handled = Promise.withResolvers<void>()
  const bus = createBus({ database: url, events, source: 'payment-service' })
  bus.subscribe({
    name: 'open-case',
    events: ['payment.paid'],
    handler: async ({ payload: { paymentId } }, { publish }) => {
      await publish({ type: 'case.opened', payload: { caseId: 'case', paymentId } })
    },
  })
  bus.subscribe({ name: 'opened', events: ['case.opened'], handler: () => handled.resolve() })
  await bus.start()
  const payload = { paymentId: '42', amountCents: 4200 }
  await db.transaction(async (tx) => {
    await bus.publish(tx, { type: 'payment.refunded', tenantId: 'zeta', payload })
    await bus.publish(tx, { type: 'payment.paid', tenantId: 'acme', correlationId: 'request-1', payload })
  })
  await handled.promise

  const acme = bus.tenant('acme')
  const trace = await acme.events.trace('request-1')
  const [own] = await acme.query(async (db) => db.select({ events: count() }).from(log))
  const { eventCount, types } = await acme.stats()
  await bus.stop()
  return { trace: trace.map(({ type }) => type), own: own?.events, eventCount, types: types.length }
}
