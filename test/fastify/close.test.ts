import http from 'node:http'
import net from 'node:net'
import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import { expect, onTestFinished, test } from 'vitest'
import { bus as busPlugin } from '../../src/fastify/index.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { startProgram } from '../support/processes.ts'
import { roomFor } from '../support/slowness.ts'
import { newBus, somePayment, testApp } from './app.ts'

/** Room for a busy machine. */
const roomMs = 2000

/** What a stop may take beyond its grace. */
const marginMs = 6000 + roomMs

interface Answer {
  readonly status: number | undefined
  readonly body: string
}

/** An agent that keeps its connections, as clients and load balancers do. */
function keepAliveAgent(): http.Agent {
  const agent = new http.Agent({ keepAlive: true })
  onTestFinished(() => agent.destroy())
  return agent
}

async function get(url: string, agent: http.Agent): Promise<Answer> {
  const request = http.get(url, { agent })
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  let body = ''
  for await (const chunk of response) body += String(chunk)
  return { status: response.statusCode, body }
}

interface Service {
  readonly app: FastifyInstance
  readonly url: string
  /** Resolves when a request is in flight that ends when told to. */
  readonly inFlight: Promise<void>
  readonly finish: () => void
}

async function startService(
  database: string,
  graceMs: number,
  listen: { host?: string } = { host: '127.0.0.1' },
  options: FastifyServerOptions = {},
): Promise<Service> {
  const app = testApp(options)
  await app.register(busPlugin, newBus(database, { graceMs }))
  const inFlight = Promise.withResolvers<void>()
  const mayFinish = Promise.withResolvers<void>()
  app.get('/quick', async () => 'quick')
  app.get('/slow', async (request) => {
    inFlight.resolve()
    await mayFinish.promise
    return (await request.bus.tryPublish(somePayment())) === undefined ? 'lost' : 'published'
  })
  app.get('/stream', async (_request, reply) => {
    reply.raw.writeHead(200)
    reply.raw.write('begun ')
    inFlight.resolve()
    await mayFinish.promise
    reply.raw.end('done')
    return reply
  })
  const url = await app.listen({ port: 0, ...listen })
  return { app, url, inFlight: inFlight.promise, finish: () => mayFinish.resolve() }
}

test.each([
  ['/slow', {}, 'published'],
  ['/stream', {}, 'begun done'],
  ['/slow', { host: 'localhost' }, 'published'],
])(
  'a request that runs (%s, %o) is answered while the bus drains, and its connection does not keep the app open',
  async (path, listen, body) => {
    const { url: database } = await createTestDatabase()
    const { app, url, inFlight, finish } = await startService(database, 20_000, listen)
    const agent = keepAliveAgent()
    expect(await get(`${url}/quick`, keepAliveAgent())).toEqual({ status: 200, body: 'quick' })
    const answer = get(`${url}${path}`, agent)
    await inFlight
    const closing = app.close()
    await until('the bus is stopping', () => app.bus.state === 'stopping')
    await pause(200)
    expect(app.bus.state).toBe('stopping')
    const finishedAt = performance.now()
    finish()
    expect(await answer).toEqual({ status: 200, body })
    await closing
    expect(performance.now() - finishedAt).toBeLessThan(roomFor(roomMs))
    expect(app.bus.state).toBe('stopped')
    await expect(get(`${url}/quick`, keepAliveAgent())).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  },
)

test('nothing is fetched any more from the moment the app closes, whatever requests run', async () => {
  const { url: database, db, count } = await createTestDatabase()
  const service = await startService(database, 20_000)
  const { app, url, inFlight, finish } = service
  const answer = get(`${url}/slow`, keepAliveAgent())
  await inFlight
  const closing = app.close()
  await until('the bus is stopping', () => app.bus.state === 'stopping')
  await db.transaction(async (tx) => app.bus.publish(tx, somePayment()))
  await pause(300)
  expect(await count('select count(*) from bus.outbox')).toBe(1)
  finish()
  await answer
  await closing
  expect(await count('select count(*) from bus.outbox')).toBe(2)
})

const graceMs = 1500

test.each([
  ['a request', graceMs - 100],
  ['a connection that was never used', 0],
  ['half a request', 0],
  ['an upgraded connection', 0],
])('%s that outlives graceMs ends with it, and not before', async (what, atLeastMs) => {
  const { url: database } = await createTestDatabase()
  const { app, url, inFlight } = await startService(database, graceMs)
  app.server.on('upgrade', (_request, socket: net.Socket) => {
    socket.on('error', () => {})
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n')
  })
  const { port } = new URL(url)
  const socket = net.connect(Number(port), '127.0.0.1')
  socket.on('error', () => {})
  await once(socket, 'connect')
  const host = `Host: 127.0.0.1:${port}\r\n`
  const sent = {
    'a request': `GET /slow HTTP/1.1\r\n${host}\r\n`,
    'half a request': `POST /slow HTTP/1.1\r\n${host}`,
    'an upgraded connection': `GET / HTTP/1.1\r\n${host}Connection: Upgrade\r\nUpgrade: echo\r\n\r\n`,
  }[what]
  if (sent !== undefined) socket.write(sent)
  if (what === 'a request') await inFlight
  if (what === 'an upgraded connection') await once(socket, 'data')
  socket.resume()
  const beganAt = performance.now()
  const ended = new Promise<number>((resolve) => {
    socket.on('close', () => resolve(performance.now() - beganAt))
  })
  await app.close()
  const tookMs = performance.now() - beganAt
  expect(tookMs).toBeLessThan(roomFor(graceMs + marginMs))
  expect(await ended).toBeLessThan(roomFor(graceMs + marginMs))
  expect(await ended).toBeGreaterThan(atLeastMs)
})

test('an app that is closed by its own onClose hook stopping the bus does not wait for itself', async () => {
  const { url: database } = await createTestDatabase()
  const app = testApp()
  await app.register(busPlugin, newBus(database, { graceMs: 20_000 }))
  app.addHook('onClose', async () => app.bus.stop())
  await app.listen({ port: 0 })
  const beganAt = performance.now()
  await app.close()
  expect(performance.now() - beganAt).toBeLessThan(roomFor(roomMs))
})

test('a process that gets SIGTERM with a slow request on a kept connection answers it, and ends soon after', async () => {
  const { url: database } = await createTestDatabase()
  const program = await startProgram('serving-process.ts', database)
  const url = program.output.find((line) => line.startsWith('http://')) ?? ''
  const agent = keepAliveAgent()
  expect(await get(`${url}/quick`, keepAliveAgent())).toMatchObject({ status: 200 })
  const answer = get(`${url}/slow`, agent)
  await program.says('in flight')
  const beganAt = performance.now()
  program.child.kill('SIGTERM')
  expect(await answer).toEqual({ status: 200, body: 'published' })
  expect(await program.exited).toBe(0)
  // The request takes two seconds; the rest is the bus's, which began to stop at once.
  expect(performance.now() - beganAt).toBeLessThan(roomFor(2000 + roomMs * 2))
  const stoppingAfterMs = Number(program.output.find((line) => line.startsWith('stopping '))?.split(' ')[1])
  expect(stoppingAfterMs).toBeLessThan(roomFor(1000))
})
