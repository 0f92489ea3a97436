/**
 * A process with an exactly-once subscription: `node exactly-once-process.ts URL`. Its handler adds to a counter and writes
 * an effect. For the payload `hold` it then says so and waits for a line on standard input, in its first attempt.
 */
import { once } from 'node:events'
import { sql } from 'drizzle-orm'
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'
import { writeEffect } from './effects.ts'

const url = process.argv[2] ?? ''
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
bus.subscribe({
  name: 'once',
  events: ['note'],
  mode: 'exactly-once',
  retry: { maxAttempts: 100, delaySeconds: 0, backoff: false },
  handler: async (event, { tx, attempt, publish }) => {
    if (event.payload === 'hold') await tx.execute(sql`update counters set n = n + 1`)
    await writeEffect(tx, event)
    await publish({ type: 'payment.refunded', tenantId: 'a', payload: { paymentId: event.id } })
    if (event.payload !== 'hold' || attempt > 1) return
    console.log('holding')
    await once(process.stdin, 'data')
    console.log('resumed')
  },
})
await bus.start()
process.on('SIGTERM', () => {
  void bus.stop().then(() => process.exit(0))
})
console.log('started')
