/** A process whose handler never ends: `node holding-process.ts URL HEARTBEAT_SECONDS`. It says `holding` when one runs. */
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const [, , url = '', heartbeatSeconds = ''] = process.argv
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
bus.subscribe({
  name: 'held',
  events: ['note'],
  heartbeatSeconds: heartbeatSeconds === 'default' ? undefined : Number(heartbeatSeconds),
  handler: async () => {
    console.log('holding')
    await new Promise(() => {})
  },
})
await bus.start()
console.log('started')
