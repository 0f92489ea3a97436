/**
 * A process whose clock is wrong: `node skewed-process.ts URL SHIFT_MS FILE`. It publishes one event for now and one for in two
 * seconds by the database's clock, and some of a key; each event fails its first attempt. What the ordered handler does it
 * writes to the file.
 */
// oxlint-disable-next-line import/no-unassigned-import -- it changes what everything after it sees
import './shifted-clock.ts'
import { openSync, writeSync } from 'node:fs'
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const [, , url = '', shiftMs = '0', file = ''] = process.argv
const turns = openSync(file, 'a')
const hours = Number(shiftMs) / 3_600_000
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
bus.subscribe({
  name: 'skewed',
  events: ['note'],
  handler: (_event, { attempt }) => {
    if (attempt === 1) throw new Error('the first attempt fails')
  },
})
bus.subscribe({
  name: 'ordered',
  events: ['payment.paid'],
  ordered: true,
  retry: { delaySeconds: 0, backoff: false },
  handler: ({ orderingKey = '', payload: { amountCents } }, { attempt }) => {
    const write = (what: string): void => {
      writeSync(turns, `${process.hrtime.bigint()} ${what} ${orderingKey} ${amountCents}\n`)
    }
    write('begins')
    write(attempt === 1 ? 'fails' : 'succeeds')
    if (attempt === 1) throw new Error('the first attempt fails')
  },
})
await bus.start()
for (let amountCents = 0; amountCents < 5; amountCents += 1) {
  const payload = { paymentId: 'p', amountCents }
  await bus.tryPublish({
    type: 'payment.paid',
    tenantId: 'a',
    orderingKey: `key ${hours}`.replace(' ', ''),
    payload,
  })
}
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
