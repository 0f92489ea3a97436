/**
 * A process with one subscription whose handler ends it: `node poisoned-process.ts URL MODE HOW FILE BATCHSIZE`. MODE is `plain`, `once`,
 * `block`, `park` or `skip`; HOW is how an event with the payload `poison` ends the process. Notes each event it delivers.
 */
import { openSync, writeSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { createBus, type KeyFailureRule } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'
import { endProcess, type Ending } from './endings.ts'

const [url = '', mode = '', how = '', file = '', batchSize = '100'] = process.argv.slice(2)
const log = openSync(file, 'a')
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })
bus.subscribe({
  name: 'poisoned',
  events: ['note'],
  heartbeatSeconds: 10,
  batchSize: Number(batchSize),
  retry: { maxAttempts: 3, delaySeconds: 0, backoff: false },
  mode: mode === 'once' ? 'exactly-once' : 'at-least-once',
  ...(mode === 'plain' || mode === 'once' ? {} : { ordered: true, onKeyFailure: mode as KeyFailureRule }),
  handler: async ({ payload }) => {
    await pause(5)
    if (payload === 'poison') await endProcess(how as Ending)
    writeSync(log, `${String(payload)}\n`)
  },
})
await bus.start()
process.on('SIGTERM', () => {
  void bus.stop().then(() => process.exit(0))
})
console.log('started')
