import { expect, test } from 'vitest'
import { HttpError } from '../../../src/index.ts'
import { bus as busPlugin } from '../../../src/fastify/index.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { startTcpProxy } from '../../support/tcp-proxy.ts'
import { newBus, testApp } from '../app.ts'
import { accessByHeaders, openApiApp, requestsTo } from './api-app.ts'

const id = '0195c2f4-7a3e-7c11-8f00-1d2e3f4a5b6c'

interface Answer {
  readonly statusCode: number
  readonly body: string
  readonly headers: object
}

/** Every error is one object of one form. */
function expectError(answer: Answer, statusCode: number, code: string, more: object = {}): void {
  expect(answer.headers).toMatchObject({
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store',
  })
  const body = JSON.parse(answer.body) as Readonly<Record<string, unknown>>
  expect(body).toMatchObject({ statusCode, code, message: expect.stringMatching(/\S/) as string, ...more })
  expect([answer.statusCode, Object.keys(body).filter((key) => key !== 'option')]).toEqual([
    statusCode,
    ['statusCode', 'code', 'message'],
  ])
}

test('every error has one form, with a code that stays', async () => {
  const { app, get, post, bus } = await openApiApp({
    prepare: (opened) => opened.subscribe({ name: 'quick', events: ['note'], handler: () => {} }),
  })
  expectError(await get('/bus/api/events?limit=0'), 400, 'BUS_INVALID_OPTION', { option: 'limit' })
  expectError(await get('/bus/api/events?limt=1'), 400, 'BUS_INVALID_OPTION', { option: 'limt' })
  expectError(await get('/bus/api/events?pattern=a.**.b'), 400, 'BUS_INVALID_PATTERN')
  expectError(await get('/bus/api/events/7'), 400, 'BUS_INVALID_OPTION', { option: 'id' })
  expectError(await get(`/bus/api/events/${id}`), 404, 'BUS_EVENT_NOT_FOUND')
  expectError(await get('/bus/api/subscriptions/none'), 404, 'BUS_SUBSCRIPTION_NOT_FOUND')
  expectError(await get(`/bus/api/operations/${id}`), 404, 'BUS_OPERATION_NOT_FOUND')
  expectError(await get(`/bus/api/dead-letters/quick/${id}`), 404, 'BUS_DEAD_LETTER_NOT_FOUND')
  expectError(await post('/bus/api/subscriptions/quick/remove'), 409, 'BUS_SUBSCRIPTION_SERVED')
  expectError(await post('/bus/api/canary'), 503, 'BUS_INVALID_STATE')
  const event = { type: 'note', tenantId: 'acme', payload: 'x'.repeat(300_000) }
  const byName = { 'x-allow': 'publishByHand' }
  expectError(await post('/bus/api/events', { event }, byName), 413, 'BUS_PAYLOAD_TOO_LARGE')
  expectError(
    await post(
      '/bus/api/events',
      { event: { ...event, type: 'usage.billed', payload: { units: 1 } } },
      byName,
    ),
    ...([403, 'BUS_SOURCE_NOT_ALLOWED'] as const),
  )
  expectError(await get('/bus/api/subscriptions', { 'x-user': '' }), 500, 'BUS_HTTP_ERROR')
  expectError(await get('/bus/api/subscriptions', { 'x-allow': 'stats' }), 403, 'BUS_HTTP_FORBIDDEN')
  expectError(await post('/bus/api/replay', {}, { origin: 'null' }), 403, 'BUS_HTTP_CROSS_ORIGIN')
  expectError(await post('/bus/api/replay', '{', {}), 400, 'BUS_HTTP_BAD_REQUEST')
  expectError(await post('/bus/api/replay', '[]', {}), 400, 'BUS_INVALID_OPTION')
  const large = JSON.stringify({ reason: 'x'.repeat(1_100_000) })
  expectError(await post('/bus/api/replay', large), 413, 'BUS_HTTP_BODY_TOO_LARGE')
  expectError(
    await post('/bus/api/replay', '{}', { 'content-type': 'text/xml' }),
    415,
    'BUS_HTTP_UNSUPPORTED_MEDIA_TYPE',
  )
  for (const url of ['/bus/api', '/bus/api/', '/bus/api/nothing', '/bus/api/events/a/b/c', '/bus/api/Events'])
    expectError(await get(url), 404, 'BUS_HTTP_NOT_FOUND')
  expectError(await post('/bus/api/nothing', '{ unread'), 404, 'BUS_HTTP_NOT_FOUND')
  for (const [method, url, allow] of [
    ['GET', '/bus/api/replay', 'POST'],
    ['POST', '/bus/api/subscriptions', 'GET, HEAD'],
    ['DELETE', `/bus/api/events/${id}?x=1`, 'GET, HEAD'],
    ['PUT', '/bus/api/events', 'GET, HEAD, POST'],
    ['PATCH', '/bus/api/openapi.json', 'GET, HEAD'],
    ['OPTIONS', '/bus/api/erase', 'POST'],
  ] as const) {
    const answer = await app.inject({ method, url, headers: { 'x-user': 'ana' } })
    expectError(answer, 405, 'BUS_HTTP_METHOD_NOT_ALLOWED')
    expect([url, answer.headers.allow]).toEqual([url, allow])
  }
  const head = await app.inject({
    method: 'HEAD',
    url: '/bus/api/subscriptions',
    headers: { 'x-user': 'ana' },
  })
  expect([head.statusCode, head.body]).toEqual([200, ''])
  expect((await app.inject('/elsewhere')).json()).toMatchObject({ error: 'Not Found' })
  expect(await bus.audit.list()).toEqual([])
})

test('errors of what the app puts in front have the same form, and say no more than they should', async () => {
  const { get } = await openApiApp({
    prepare: (_bus, app) =>
      app.addHook('onRequest', async ({ headers }, reply) => {
        const status = Number(headers['x-status'])
        void reply.header('retry-after', '7')
        if (status > 0)
          throw Object.assign(new Error('from the app'), { statusCode: status, code: 'FST_ANY' })
        if (headers['x-throw'] === 'text') throw 'a text' as unknown as Error
        if (headers['x-throw'] === 'bus') throw new HttpError(418, 'BUS_HTTP_ERROR', 'a teapot')
      }),
  })
  for (const [status, code] of [
    [400, 'BUS_HTTP_BAD_REQUEST'],
    [401, 'BUS_HTTP_UNAUTHORIZED'],
    [402, 'BUS_HTTP_BAD_REQUEST'],
    [403, 'BUS_HTTP_FORBIDDEN'],
    [404, 'BUS_HTTP_NOT_FOUND'],
    [405, 'BUS_HTTP_METHOD_NOT_ALLOWED'],
    [413, 'BUS_HTTP_BODY_TOO_LARGE'],
    [415, 'BUS_HTTP_UNSUPPORTED_MEDIA_TYPE'],
    [429, 'BUS_HTTP_TOO_MANY_REQUESTS'],
    [500, 'BUS_HTTP_ERROR'],
    [502, 'BUS_HTTP_ERROR'],
    [503, 'BUS_HTTP_UNAVAILABLE'],
  ] as const) {
    const answer = await get('/bus/api/access', { 'x-status': String(status) })
    const isSaid = status < 500 || status === 503
    expect([answer.statusCode, answer.json(), answer.headers['retry-after']]).toEqual([
      status,
      { statusCode: status, code, message: isSaid ? 'from the app' : 'The request failed; the log says why' },
      '7',
    ])
  }
  expect((await get('/bus/api/access', { 'x-throw': 'text' })).json()).toMatchObject({
    code: 'BUS_HTTP_ERROR',
  })
  expect((await get('/bus/api/access', { 'x-throw': 'bus' })).json()).toMatchObject({
    statusCode: 418,
    message: 'a teapot',
  })
  expect((await get('/bus/api/access')).statusCode).toBe(200)
})

test('what a plugin of the app refuses under load is not logged as a failure of the bus, and what the bus fails at is', async () => {
  const lines: string[] = []
  const { get } = await openApiApp({
    server: { logger: { level: 'error', stream: { write: (line: string) => void lines.push(line) } } },
    prepare: (_bus, app) =>
      app.addHook('onRequest', async ({ headers }) => {
        const status = Number(headers['x-status'])
        if (status > 0) throw Object.assign(new Error('Service Unavailable'), { statusCode: status })
      }),
  })
  expect((await get('/bus/api/access', { 'x-status': '503' })).statusCode).toBe(503)
  expect((await get('/bus/api/access', { 'x-status': '429' })).statusCode).toBe(429)
  expect(lines).toEqual([])
  expect((await get('/bus/api/access', { 'x-status': '500' })).statusCode).toBe(500)
  expect(lines).toEqual([expect.stringContaining('a request to the bus failed')])
})

test('what is wrong with a request is named: the option, the path, and that another origin has sent it', async () => {
  const { get } = await openApiApp()
  expect((await get('/bus/api/events?payload={bad')).json()).toMatchObject({
    statusCode: 400,
    option: 'payload',
  })
  expect((await get('/bus/api')).json()).toMatchObject({ message: 'There is no route GET /bus/api' })
  expect((await get('/bus/api/nothing')).json()).toMatchObject({ message: 'There is no route GET /nothing' })
})

test('a database that does not answer is 503, which says nothing of it, and is answered again when it is back', async () => {
  const database = await createTestDatabase()
  const proxy = await startTcpProxy(database.url)
  const app = testApp()
  await app.register(busPlugin, { ...newBus(proxy.url), api: { access: accessByHeaders, health: true } })
  await app.ready()
  const { get } = requestsTo(app)
  expect((await get('/bus/api/subscriptions')).statusCode).toBe(200)
  expect((await get('/health/ready')).json()).toEqual({ ready: true, state: 'started', database: 'up' })
  proxy.refuseService(true)
  proxy.cut()
  const answer = await get('/bus/api/subscriptions')
  expectError(answer, 503, 'BUS_DATABASE_UNAVAILABLE', { message: 'The request failed; the log says why' })
  // A restart would not help: the process lives, and takes no traffic.
  const ready = await get('/health/ready')
  expect([ready.statusCode, ready.json()]).toEqual([
    503,
    { ready: false, state: 'started', database: 'down' },
  ])
  const began = performance.now()
  const live = await get('/health/live')
  expect([live.statusCode, live.json()]).toEqual([200, { live: true, state: 'started' }])
  expect(performance.now() - began).toBeLessThan(500)
  proxy.refuseService(false)
  await until('it answers again', async () => (await get('/bus/api/subscriptions')).statusCode === 200)
  await until('it is ready again', async () => (await get('/health/ready')).statusCode === 200)
})

test('routes of a bus that has not started, or has stopped, are 503', async () => {
  const app = testApp()
  await app.register(busPlugin, {
    ...newBus('postgres://someone:secret@127.0.0.1:1/nowhere'),
    api: { access: accessByHeaders, health: true },
  })
  await expect(app.ready()).rejects.toMatchObject({ code: 'BUS_DATABASE_UNAVAILABLE' })
  const { get } = requestsTo(app)
  const answer = await get('/bus/api/subscriptions')
  expect([answer.statusCode, answer.body]).toEqual([503, expect.not.stringMatching(/secret|someone|127/)])
  expect((await get('/health/ready')).statusCode).toBe(503)
})
