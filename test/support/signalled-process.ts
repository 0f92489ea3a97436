/**
 * A service that stops on signals: `node signalled-process.ts URL SCENE`. Prints `started`, `handling` when a handler runs, `asked` when an
 * HTTP request does, and then what happens.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { createBus, stopOnSignals } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const [, , url = '', scene = ''] = process.argv
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service', logger: silent })

let isSignalled = false
const untilSignalled = async (): Promise<void> => {
  while (!isSignalled) await pause(5)
  await pause(200)
}

bus.subscribe({
  name: 'slow',
  events: ['payment.refunded'],
  handler: async () => {
    console.log('handling')
    await (scene === 'hanging' ? new Promise(() => {}) : untilSignalled())
    console.log('handled')
  },
})
await bus.start()

const server = createServer((_request, response) => {
  console.log('asked')
  void untilSignalled()
    .then(async () => bus.tryPublish({ type: 'note', tenantId: 'a', payload: 'late' }))
    .then((published) => response.end(published === undefined ? 'lost' : 'published'))
})
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)

const unsubscribe = stopOnSignals(bus, {
  graceMs: scene === 'hanging' ? 60_000 : 20_000,
  onSignal: async (signal) => {
    isSignalled = true
    console.log(signal)
    await new Promise<void>((resolve) => server.close(() => resolve()))
    console.log('closed')
    if (scene === 'failing') throw new Error('the server could not be closed')
  },
  onStopped: () => console.log(bus.state),
})
if (scene === 'unsubscribed') unsubscribe()
process.on('exit', (code) =>
  console.log(
    `exit ${code}, ${process.listenerCount('SIGTERM') + process.listenerCount('SIGINT')} listeners`,
  ),
)
console.log('started')
