/** A process with three subscriptions that takes its time: `node draining-process.ts URL`. Says how much memory it took when it ends, on SIGTERM. */
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const bus = createBus({ database: process.argv[2] ?? '', events: paymentEvents, source: 'payment-service' })
for (const name of ['first', 'second', 'third']) {
  bus.subscribe({
    name,
    events: ['note'],
    handler: async () => new Promise((resolve) => setImmediate(resolve)),
  })
}
await bus.start()
process.on('SIGTERM', () => {
  void bus.stop().then(() => {
    console.log(`MB ${Math.round(process.resourceUsage().maxRSS / 1024)}`)
    process.exit(0)
  })
})
console.log('started')
