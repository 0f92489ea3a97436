// From Node's EventEmitter: the listeners stay as they are, each becomes a subscription under a name of its own.
import { EventEmitter } from 'node:events'
import { createBus, type EventType, type PayloadOutput } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

type Payloads = { [T in EventType<typeof events>]: [PayloadOutput<typeof events, T>] }

const heard: string[] = []
const listeners = {
  onPaid: ({ paymentId, amountCents }: Payloads['payment.paid'][0]): void =>
    void heard.push(`${paymentId} paid ${amountCents}`),
  onOpened: ({ caseId }: Payloads['case.opened'][0]): void => void heard.push(caseId),
}

/** As it was: what is emitted is lost with the process, and a listener that throws stops the others. */
function before(): void {
  const emitter = new EventEmitter<Payloads>()
  emitter.on('payment.paid', listeners.onPaid)
  emitter.on('case.opened', listeners.onOpened)
  emitter.emit('payment.paid', { paymentId: '41', amountCents: 100 })
}

export async function run({ url, db }: Environment): Promise<string[]> {
  const done = Promise.withResolvers<void>()
  const bus = createBus({
    database: url,
    events,
    source: 'payment-service',
    defaults: { tenantId: 'main' },
  })
  // Was: emitter.on('payment.paid', listeners.onPaid)
  bus.subscribe({
    name: 'on-payment-paid',
    events: ['payment.paid'],
    handler: ({ payload }) => {
      listeners.onPaid(payload)
      if (heard.length === 3) done.resolve()
    },
  })
  bus.subscribe({
    name: 'on-case-opened',
    events: ['case.opened'],
    handler: ({ payload }) => {
      listeners.onOpened(payload)
      if (heard.length === 3) done.resolve()
    },
  })
  await bus.start()

  before()
  // Was: emitter.emit('payment.paid', { … })
  await db.transaction(async (tx) =>
    bus.publish(tx, { type: 'payment.paid', payload: { paymentId: '42', amountCents: 4200 } }),
  )
  // Was: emitter.emit('case.opened', { … }), outside any transaction
  await bus.tryPublish({ type: 'case.opened', payload: { caseId: 'case-42', paymentId: '42' } })
  await done.promise
  await bus.stop()
  return heard.toSorted()
}
