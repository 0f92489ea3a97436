/**
 * A process with a relay and a subscription that is ordered and exactly-once: `node ordered-once-process.ts URL`. Its handler notes
 * the turn of each event in its transaction, publishes another one, and fails in a tenth of its attempts. Ends on SIGTERM, after draining.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'
import { takeTurn } from './turns.ts'
import { randomNumbers, seed } from './random.ts'

/** Others than those of the processes beside it. */
const random = randomNumbers(seed + process.pid)

const url = process.argv[2] ?? ''
const silent = { debug: () => {}, info: () => {}, warn: () => {} }
const bus = createBus({
  database: url,
  events: paymentEvents,
  source: 'payment-service',
  logger: { ...silent, error: (fields, message) => console.error(message, fields) },
})
bus.subscribe({
  name: 'both',
  events: ['note'],
  ordered: true,
  mode: 'exactly-once',
  retry: { maxAttempts: 100, delaySeconds: 0, backoff: false },
  handler: async (event, { tx, publish }) => {
    await takeTurn(tx, event.orderingKey ?? '', event.payload)
    await publish({ type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: event.id } })
    if (random() < 0.2) await pause(1)
    if (random() < 0.1) throw new Error('by chance')
  },
})
await bus.start()
process.on('SIGTERM', () => {
  void bus.stop().then(() => process.exit(0))
})
console.log('started')
