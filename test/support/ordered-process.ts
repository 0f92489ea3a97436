/**
 * A process with a relay and an ordered subscription: `node ordered-process.ts URL FILE`. A tenth of the attempts fails.
 * Writes what its handler does to the file, line by line. Ends on SIGTERM, after draining.
 */
import { openSync, writeSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'
import { randomNumbers, seed } from './random.ts'

/** Others than those of the processes beside it. */
const random = randomNumbers(seed + process.pid)

const [url = '', file = ''] = process.argv.slice(2)
const log = openSync(file, 'a')
const write = (what: string, key: string, number: unknown): void => {
  writeSync(log, `${process.hrtime.bigint()} ${what} ${key} ${number as number}\n`)
}

const bus = createBus({
  database: url,
  events: paymentEvents,
  source: 'payment-service',
  logger: {
    debug: () => {},
    info: () => {},
    warn: () => {},
    error: (fields, message) => console.error(message, fields),
  },
})
bus.subscribe({
  name: 'ordered',
  events: ['note'],
  ordered: true,
  retry: { maxAttempts: 50, delaySeconds: 0, backoff: false },
  handler: async ({ orderingKey = '', payload }) => {
    write('begins', orderingKey, payload)
    if (random() < 0.2) await pause(1)
    const fails = random() < 0.1
    write(fails ? 'fails' : 'succeeds', orderingKey, payload)
    if (fails) throw new Error('by chance')
  },
})
await bus.start()
process.on('SIGTERM', () => {
  void bus.stop().then(() => process.exit(0))
})
console.log('started')
