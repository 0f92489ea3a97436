// Types of events as constants, which an editor finds and renames.
import { createBus, defineSubscription, eventTypes, type EventType } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

const types = eventTypes(events)

const verbs: Record<EventType<typeof events>, string> = {
  [types['payment.paid']]: 'came in',
  [types['payment.refunded']]: 'went out',
  [types['case.opened']]: 'was opened',
}

const lines: string[] = []
const both = Promise.withResolvers<void>()
const journal = defineSubscription(events, {
  name: 'journal',
  events: [types['payment.paid'], types['payment.refunded']],
  handler: ({ type, payload }) => {
    if (lines.push(`${payload.amountCents} ${verbs[type]}`) === 2) both.resolve()
  },
})

export async function run({ url, db }: Environment): Promise<string[]> {
  const bus = createBus({ database: url, events, source: 'payment-service', defaults: { tenantId: 'acme' } })
  bus.subscribe(journal)
  await bus.start()
  const payload = { paymentId: '42', amountCents: 4200 }
  await db.transaction(async (tx) =>
    bus.publishMany(tx, [
      { type: types['payment.paid'], payload },
      { type: types['payment.refunded'], payload },
    ]),
  )
  await both.promise
  await bus.stop()
  return lines.toSorted()
}
