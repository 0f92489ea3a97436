/**
 * A process that redrives dead letters and may be killed at any time: `node redriving-process.ts URL`. It loads everything, says `loaded`, and
 * starts its bus when it gets a line on standard input. Its exactly-once handlers leave what they did in their transactions.
 */
import { once } from 'node:events'
import { flushCompileCache } from 'node:module'
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'
import { writeEffect } from './effects.ts'
import { takeTurn } from './turns.ts'

const [, , url = ''] = process.argv
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service', logger: silent })
const retry = { maxAttempts: 50, delaySeconds: 0, backoff: false }
bus.subscribe({ name: 'plain', events: ['note'], retry, handler: () => {} })
bus.subscribe({
  name: 'once',
  events: ['note'],
  mode: 'exactly-once',
  retry,
  handler: async (event, { tx }) => writeEffect(tx, event),
})
bus.subscribe({
  name: 'in-order',
  events: ['payment.paid'],
  ordered: true,
  mode: 'exactly-once',
  retry,
  handler: async ({ orderingKey = '', payload: { amountCents } }, { tx }) =>
    takeTurn(tx, orderingKey, amountCents),
})
await Promise.all([import('drizzle-orm/node-postgres'), import('drizzle-orm/pg-core')])
flushCompileCache()
console.log('loaded')
await once(process.stdin, 'data')
for (;;) {
  try {
    await bus.start()
    break
  } catch {
    // The database may be away.
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}
process.on('SIGTERM', () => {
  void bus.stop().then(() => process.exit(0))
})
console.log('started')
