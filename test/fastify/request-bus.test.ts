import type { FastifyInstance, FastifyRequest } from 'fastify'
import { expect, test } from 'vitest'
import { bus as busPlugin } from '../../src/fastify/index.ts'
import type { Published, Publisher } from '../../src/index.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { recordingLogger } from '../support/bus.ts'
import { newBus, somePayment, testApp } from './app.ts'

const storedCorrelationIds = 'select correlation_id from bus.events order by id'

/** An app whose route publishes one event through its request, under the request id given. */
async function publishingApp({ url, db }: TestDatabase, requestId: () => string): Promise<FastifyInstance> {
  const app = testApp({ genReqId: requestId })
  await app.register(busPlugin, newBus(url))
  app.post('/', async (request) => db.transaction(async (tx) => request.bus.publish(tx, somePayment())))
  await app.ready()
  return app
}

test('an event published through the request carries its id as correlation id', async () => {
  const database = await createTestDatabase()
  const app = await publishingApp(database, () => 'request-7')
  const response = await app.inject({ method: 'POST', url: '/' })
  expect(response.json<Published>()).toEqual({ id: expect.any(String) as string, duplicate: false })
  expect(await database.rows(storedCorrelationIds)).toEqual([{ correlation_id: 'request-7' }])
})

test('an event published through the app carries no correlation id', async () => {
  const { url, db, rows } = await createTestDatabase()
  const app = testApp()
  await app.register(busPlugin, newBus(url))
  await db.transaction(async (tx) => app.bus.publish(tx, somePayment()))
  expect(await rows(storedCorrelationIds)).toEqual([{ correlation_id: null }])
})

test('an event keeps the correlation id of its own', async () => {
  const { url, db, rows } = await createTestDatabase()
  const app = testApp({ genReqId: () => 'request-7' })
  await app.register(busPlugin, newBus(url))
  app.post('/', async (request) =>
    db.transaction(async (tx) =>
      request.bus.publishMany(tx, [somePayment({ correlationId: 'order-1' }), somePayment()]),
    ),
  )
  await app.inject({ method: 'POST', url: '/' })
  expect(await rows(storedCorrelationIds)).toEqual([
    { correlation_id: 'order-1' },
    { correlation_id: 'request-7' },
  ])
})

test('tryPublish of a request carries its id, and still never throws', async () => {
  const { url, rows } = await createTestDatabase()
  const app = testApp({ genReqId: () => 'request-7' })
  await app.register(busPlugin, newBus(url, { logger: recordingLogger() }))
  app.post('/', async (request) => ({
    published: await request.bus.tryPublish(somePayment()),
    refused: (await request.bus.tryPublish(undefined as never)) === undefined,
  }))
  const response = await app.inject({ method: 'POST', url: '/' })
  expect(response.json()).toEqual({
    published: { id: expect.any(String) as string, duplicate: false },
    refused: true,
  })
  expect(await rows(storedCorrelationIds)).toEqual([{ correlation_id: 'request-7' }])
})

test('what is no event is refused as it is without a request', async () => {
  const { url, db } = await createTestDatabase()
  const app = testApp()
  await app.register(busPlugin, newBus(url))
  const codes: unknown[] = []
  app.post('/', async (request) => {
    for (const publish of [
      async () => db.transaction(async (tx) => request.bus.publish(tx, 'paid' as never)),
      async () => db.transaction(async (tx) => request.bus.publishMany(tx, undefined as never)),
      async () => request.bus.publish(undefined as never, somePayment()),
    ]) {
      await publish().catch((error: unknown) => codes.push((error as { code: string }).code))
    }
  })
  await app.inject({ method: 'POST', url: '/' })
  expect(codes).toEqual(['BUS_INVALID_EVENT', 'BUS_INVALID_BATCH', 'BUS_NOT_IN_TRANSACTION'])
})

test('a request id of any length and content does not fail a publish', async () => {
  const ids = ['x'.repeat(5000), 'half \ud800', 'nul \u0000', '', 42 as unknown as string, 'plain']
  const database = await createTestDatabase()
  const left = [...ids]
  const app = await publishingApp(database, () => left.shift() ?? '')
  for (const id of ids) {
    const response = await app.inject({ method: 'POST', url: '/' })
    expect([response.statusCode, id.length]).toEqual([200, id.length])
  }
  expect((await database.rows(storedCorrelationIds)).map((row) => row['correlation_id'])).toEqual([
    'x'.repeat(255),
    null,
    null,
    null,
    '42',
    'plain',
  ])
})

test('each request has a bus of its own, the same one throughout', async () => {
  const { url } = await createTestDatabase()
  const app = testApp()
  await app.register(busPlugin, newBus(url))
  const seen: unknown[] = []
  app.get('/', async (request) => {
    seen.push(request.bus)
    return request.bus === request.bus
  })
  expect((await app.inject('/')).json()).toBe(true)
  await app.inject('/')
  expect(seen[0]).not.toBe(seen[1])
})

test('the bus logs through the app, marked as bossbus, unless it has a logger', async () => {
  const { url } = await createTestDatabase()
  const lines: Record<string, unknown>[] = []
  const stream = { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) }
  const app = testApp({ logger: { level: 'warn', stream } })
  await app.register(busPlugin, newBus(url))
  await app.bus.tryPublish(somePayment({ tenantId: '' }))
  expect(lines).toMatchObject([
    { module: 'bossbus', msg: 'an event could not be published', errorCode: 'BUS_TENANT_REQUIRED' },
  ])

  const logger = recordingLogger()
  const other = testApp({ logger: { level: 'warn', stream } })
  await other.register(busPlugin, newBus(url, { logger }))
  await other.bus.tryPublish(somePayment({ tenantId: '' }))
  expect(logger.lines).toMatchObject([{ message: 'an event could not be published' }])
  expect(lines).toHaveLength(1)
})

test('defaults of the plugin are asked for each request, and come before its id', async () => {
  const { url, db, rows } = await createTestDatabase()
  const app = testApp({ genReqId: () => 'request-7' })
  const options = {
    ...newBus(url),
    defaults: (request: FastifyRequest) => ({
      tenantId: request.headers['x-tenant'] as string,
      ...(request.headers['x-trace'] === undefined
        ? {}
        : { correlationId: request.headers['x-trace'] as string }),
    }),
  }
  await app.register(busPlugin, options)
  const { tenantId: _, ...payment } = somePayment()
  app.post('/', async (request) =>
    db.transaction(async (tx) => (request.bus as Publisher).publish(tx, payment as never)),
  )
  await app.inject({ method: 'POST', url: '/', headers: { 'x-tenant': 'a' } })
  await app.inject({ method: 'POST', url: '/', headers: { 'x-tenant': 'b', 'x-trace': 't-1' } })
  expect(await rows('select tenant_id, correlation_id from bus.events order by id')).toEqual([
    { tenant_id: 'a', correlation_id: 'request-7' },
    { tenant_id: 'b', correlation_id: 't-1' },
  ])
  expect((await app.inject({ method: 'POST', url: '/' })).json()).toMatchObject({
    code: 'BUS_TENANT_REQUIRED',
  })
})

test('defaults of the plugin that are no function are refused', async () => {
  const { url } = await createTestDatabase()
  const app = testApp()
  const options = { ...newBus(url), defaults: { tenantId: 'a' } as never }
  await expect(app.register(busPlugin, options)).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    message: expect.stringContaining('(request) =>') as string,
  })
})
