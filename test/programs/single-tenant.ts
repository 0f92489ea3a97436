// A service without tenants says one for all of its events, and never again.
import { createBus } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

export async function run({ url, db }: Environment): Promise<{ tenantId: string; caseId: string }> {
  const bus = createBus({ database: url, events, source: 'payment-service', defaults: { tenantId: 'main' } })
  const opened = Promise.withResolvers<{ tenantId: string; caseId: string }>()
  bus.subscribe({
    name: 'open-case',
    events: ['payment.paid'],
    handler: async ({ payload: { paymentId } }, { publish }) => {
      await publish({ type: 'case.opened', payload: { caseId: `case-${paymentId}`, paymentId } })
    },
  })
  bus.subscribe({
    name: 'show-case',
    events: ['case.opened'],
    handler: ({ tenantId, payload: { caseId } }) => opened.resolve({ tenantId, caseId }),
  })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publish(tx, { type: 'payment.paid', payload: { paymentId: '42', amountCents: 4200 } }),
  )
  const shown = await opened.promise
  await bus.stop()
  return shown
}
