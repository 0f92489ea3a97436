/**
 * A process whose clock is wrong: `node shifted-clock-process.ts URL SHIFT_MS`. Its handler writes down what it handled when, by
 * the database's clock; a first attempt at the payload `again` asks for another one half a second later.
 */
// oxlint-disable-next-line import/no-unassigned-import -- it changes what everything after it sees
import './shifted-clock.ts'
import { sql } from 'drizzle-orm'
import { createBus, RetryAfterError } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const url = process.argv[2] ?? ''
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
bus.subscribe({
  name: 'shifted',
  events: ['note'],
  mode: 'exactly-once',
  handler: async ({ id, payload }, { tx, attempt }) => {
    await tx.execute(sql`insert into handled values (${id}, clock_timestamp())`)
    if (payload === 'again' && attempt === 1) throw new RetryAfterError(0.5)
  },
})
await bus.start()
process.on('SIGTERM', () => {
  void bus.stop().then(() => process.exit(0))
})
console.log('started')
