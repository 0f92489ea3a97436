/**
 * A service to be stopped: `node stopping-process.ts URL FOLDER HOW`, HOW being `plain`, with a bus of its own, `fastify`, with the
 * plugin, or `signals`, with the plugin's `closeOnSignals`. Handlers take 150 ms and write the event's number to a file when they are done. SIGTERM stops it, as often as it comes.
 */
import { openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fastify } from 'fastify'
import { bus as busPlugin } from '../../src/fastify/index.ts'
import { createBus, type Bus } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const [, , url = '', folder = '', how = ''] = process.argv
const runs = openSync(join(folder, `${process.pid}.runs`), 'a')
const options = { database: url, events: paymentEvents, source: 'payment-service' }

function subscribe(bus: Bus<typeof paymentEvents>): void {
  bus.subscribe({
    name: 'slow',
    events: ['note'],
    batchSize: 20,
    handler: async ({ payload }, { attempt }) => {
      await pause(150)
      writeSync(runs, `${String(payload)}.${attempt}\n`)
    },
  })
}

let stop: () => Promise<void>
if (how === 'fastify' || how === 'signals') {
  const app = fastify()
  // Its own handling of signals is tried by `signals`.
  await app.register(busPlugin, {
    ...options,
    graceMs: 5000,
    closeOnSignals: how === 'signals',
  } as never)
  subscribe(app.bus as unknown as Bus<typeof paymentEvents>)
  await app.ready()
  stop = async () => app.close()
} else {
  const bus = createBus(options)
  subscribe(bus)
  await bus.start()
  stop = async () => bus.stop({ graceMs: 5000 })
}
const stopping: Promise<void>[] = []
if (how !== 'signals')
  process.on('SIGTERM', () => {
    stopping.push(stop())
    if (stopping.length === 1) void Promise.all([stop(), stop()]).then(() => process.exit(0))
  })
console.log('started')
