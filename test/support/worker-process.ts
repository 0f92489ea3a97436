/** A process with a relay and two workers on a database: `node worker-process.ts URL`. Ends on SIGTERM, after draining. */
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const url = process.argv[2] ?? ''
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
const handled = { first: 0, second: 0 }
bus.subscribe({ name: 'first', events: ['note'], handler: () => void (handled.first += 1) })
bus.subscribe({ name: 'second', events: ['note'], handler: async () => void (handled.second += 1) })
await bus.start()
process.on('SIGTERM', () => {
  void bus.stop().then(() => {
    console.log(JSON.stringify(handled))
    process.exit(0)
  })
})
console.log('started')
