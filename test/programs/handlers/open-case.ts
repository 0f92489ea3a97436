import { defineSubscription } from '../../../src/index.ts'
import { events } from '../events.ts'

export const openCase = defineSubscription(events, {
  name: 'open-case',
  events: ['payment.paid'],
  handler: async ({ payload: { paymentId } }, { publish }) => {
    await publish({ type: 'case.opened', payload: { caseId: `case-${paymentId}`, paymentId } })
  },
})
