/**
 * A process whose clock is wrong: `node skewed-process.ts URL SHIFT_MS`. It publishes one event for now and one for in two
 * seconds by the database's clock, and delivers; each event fails its first attempt.
 */
// oxlint-disable-next-line import/no-unassigned-import -- it changes what everything after it sees
import './shifted-clock.ts'
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const [, , url = '', shiftMs = '0'] = process.argv
const hours = Number(shiftMs) / 3_600_000
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
bus.subscribe({
  name: 'skewed',
  events: ['note'],
  handler: (_event, { attempt }) => {
    if (attempt === 1) throw new Error('the first attempt fails')
  },
})
await bus.start()
await bus.tryPublish({ type: 'note', tenantId: 'a', payload: `now ${hours}` })
await bus.tryPublish({
  type: 'note',
  tenantId: 'a',
  payload: `later ${hours}`,
  availableAt: new Date(Date.now() - Number(shiftMs) + 2000),
})
process.on('SIGTERM', () => {
  void bus.stop().then(() => process.exit(0))
})
console.log('started')
