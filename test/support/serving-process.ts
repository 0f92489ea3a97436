/**
 * A service over HTTP: `node serving-process.ts URL`. Prints its address, `started`, and `in flight` when a request of two
 * seconds runs. SIGTERM closes it: then it prints after how many milliseconds the bus was stopping.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { fastify } from 'fastify'
import { bus as busPlugin } from '../../src/fastify/index.ts'
import { paymentEvents } from './catalogue.ts'

const app = fastify()
const options = { database: process.argv[2] ?? '', events: paymentEvents, source: 'payment-service' }
await app.register(busPlugin, { ...options, closeOnSignals: true, graceMs: 20_000 } as never)
app.get('/quick', async () => 'quick')
app.get('/slow', async (request) => {
  console.log('in flight')
  await pause(2000)
  const event = { type: 'note', tenantId: 'a', payload: 1 }
  return (await request.bus.tryPublish(event as never)) === undefined ? 'lost' : 'published'
})
process.once('SIGTERM', () => {
  const beganAt = performance.now()
  const look = setInterval(() => {
    if (app.bus.state === 'started') return
    clearInterval(look)
    console.log(`stopping ${Math.round(performance.now() - beganAt)}`)
  }, 5)
})
console.log(await app.listen({ port: 0, host: '127.0.0.1' }))
console.log('started')
