/**
 * A process that may be killed at any time: `node killed-process.ts URL FOLDER`. It loads everything, says `loaded`, and
 * starts its bus when it gets a line on standard input. Its at-least-once handler notes each run in a file, in one write
 * that outlives the process; its exactly-once handler leaves an effect.
 */
import { once } from 'node:events'
import { openSync, writeSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { join } from 'node:path'
import { createBus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'
import { writeEffect } from './effects.ts'

const [, , url = '', folder = ''] = process.argv
const runs = openSync(join(folder, `${process.pid}.runs`), 'a')
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service', logger: silent })
const retry = { maxAttempts: 50, delaySeconds: 0, backoff: false }
bus.subscribe({
  name: 'plain',
  events: ['note'],
  retry,
  handler: (event) => void writeSync(runs, `${String(event.payload)}\n`),
})
bus.subscribe({
  name: 'once',
  events: ['note'],
  mode: 'exactly-once',
  retry,
  handler: async (event, { tx }) => writeEffect(tx, event),
})
// What the first transaction of a handler would load. Whoever is killed does not write the compile cache by itself.
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
