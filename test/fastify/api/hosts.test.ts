import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import underPressure from '@fastify/under-pressure'
import { expect, test } from 'vitest'
import { bus as busPlugin } from '../../../src/fastify/index.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase } from '../../support/database.ts'
import { testApp } from '../app.ts'
import { accessByHeaders, openApiApp, requestsTo, type ApiApp } from './api-app.ts'

const subscribe = (bus: ApiApp['bus']): unknown =>
  bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} })

/** A read, a change, and what is refused: as without anything around it. */
async function expectWorks(
  { bus, get, post }: Pick<ApiApp, 'bus' | 'get' | 'post'>,
  prefix = '/bus/api',
): Promise<void> {
  expect((await get(`${prefix}/subscriptions`)).json()).toMatchObject({ subscriptions: [{ name: 'quick' }] })
  const paused = await post(`${prefix}/subscriptions/quick/pause`, { reason: 'x' })
  expect([paused.statusCode, paused.json()]).toEqual([200, { changed: true }])
  await bus.subscriptions.resume('quick')
  const unknown = await post(`${prefix}/subscriptions/quick/pause`, { reason: 'x', why: 'y' })
  expect([unknown.statusCode, unknown.json()]).toMatchObject([
    400,
    { code: 'BUS_INVALID_OPTION', option: 'why' },
  ])
  const query = await get(`${prefix}/events?limit=1&order=x`)
  expect([query.statusCode, query.json()]).toMatchObject([
    400,
    { code: 'BUS_INVALID_OPTION', option: 'order' },
  ])
  const missing = await get(`${prefix}/nothing`)
  expect([missing.statusCode, missing.json()]).toMatchObject([404, { code: 'BUS_HTTP_NOT_FOUND' }])
  expect((await bus.subscriptions.get('quick')).state).toBe('active')
}

test('under another prefix, in an encapsulated plugin, and at the root', async () => {
  await expectWorks(await openApiApp({ prepare: subscribe, api: { prefix: '/ops/bus' } }), '/ops/bus/api')
  const rooted = await openApiApp({ prepare: subscribe, api: { prefix: '/', health: '/probes' } })
  await expectWorks(rooted, '/api')
  expect((await rooted.get('/elsewhere')).json()).toMatchObject({ error: 'Not Found' })

  const { url } = await createTestDatabase()
  const bus = testBus(url)
  subscribe(bus)
  const app = testApp()
  app.setNotFoundHandler((_request, reply) => reply.code(404).send('the app'))
  await app.register(
    async (inner) => {
      inner.setNotFoundHandler((_request, reply) => reply.code(404).send('the plugin'))
      await inner.register(busPlugin, { bus: bus as never, api: { access: accessByHeaders, health: true } })
    },
    { prefix: '/internal' },
  )
  await app.ready()
  const requests = requestsTo(app)
  await expectWorks({ bus, ...requests }, '/internal/bus/api')
  expect((await requests.get('/internal/health/ready')).statusCode).toBe(200)
  expect((await requests.get('/internal/bus/other')).body).toBe('the plugin')
  expect((await requests.get('/bus/api/access')).body).toBe('the app')
})

test('with an error handler, hooks, parsers and serializers that the app has of its own', async () => {
  const opened = await openApiApp({
    server: {
      routerOptions: { ignoreTrailingSlash: true, querystringParser: () => ({ parsed: 'by the app' }) },
      bodyLimit: 10,
      onProtoPoisoning: 'ignore',
    } as never,
    prepare(bus, app) {
      subscribe(bus)
      app.setErrorHandler((_error, _request, reply) => reply.code(500).send('the app'))
      app.setReplySerializer(() => 'serialized by the app')
      app.setSerializerCompiler(() => () => 'compiled by the app')
      app.setValidatorCompiler(() => () => ({ value: {} }))
      app.addHook('preSerialization', async (_request, _reply, payload) => ({ data: payload }))
      app.addHook('onSend', async (_request, reply, payload) => {
        void reply.header('x-app', 'yes')
        return payload
      })
      app.addContentTypeParser('text/plain', { parseAs: 'string' }, (_request, body, done) =>
        done(null, body),
      )
      app.removeContentTypeParser('application/json')
      app.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, _body, done) =>
        done(null, { parsed: 'by the app' }),
      )
    },
  })
  await expectWorks(opened)
  expect((await opened.get('/bus/api/access')).headers['x-app']).toBe('yes')
  const poisoned = await opened.post('/bus/api/subscriptions/quick/pause', '{"__proto__": {"reason": "x"}}')
  expect([poisoned.statusCode, poisoned.json()]).toMatchObject([400, { code: 'BUS_HTTP_BAD_REQUEST' }])
  // The app's own routes are as they were.
  const { app } = opened
  expect((await app.inject('/elsewhere')).statusCode).toBe(404)
})

test('HEAD is answered as GET is, also where the app has switched that off for its own routes', async () => {
  const opened = await openApiApp({
    server: { exposeHeadRoutes: false },
    prepare: subscribe,
    api: { health: true, metrics: true },
  })
  const head = async (url: string) => opened.app.inject({ method: 'HEAD', url, headers: { 'x-user': 'ana' } })
  for (const url of [
    '/bus/api/subscriptions',
    '/bus/api/openapi.json',
    '/health/live',
    '/health/ready',
    '/metrics',
  ]) {
    const answer = await head(url)
    expect([url, answer.statusCode, answer.body]).toEqual([url, 200, ''])
  }
  expect((await head('/bus/api/replay')).statusCode).toBe(405)
  expect((await opened.app.inject({ method: 'HEAD', url: '/bus/api/subscriptions' })).statusCode).toBe(403)
})

test.each([
  [{ removeAdditional: 'all' }],
  [{ removeAdditional: true, useDefaults: true, coerceTypes: 'array' }],
  [{ removeAdditional: 'failing', strict: true, allErrors: true }],
])('with ajv as the app likes it, unknown keys are refused: %o', async (customOptions) => {
  const opened = await openApiApp({ server: { ajv: { customOptions } } as never, prepare: subscribe })
  await expectWorks(opened)
  expect((await opened.get('/bus/api/access')).statusCode).toBe(200)
})

test('with @fastify/helmet, whose headers every answer has', async () => {
  const opened = await openApiApp({
    async prepare(bus, app) {
      subscribe(bus)
      await app.register(helmet)
    },
  })
  await expectWorks(opened)
  for (const url of ['/bus/api/access', '/bus/api/nothing', '/bus/api/events/7'])
    expect((await opened.get(url)).headers).toMatchObject({
      'content-security-policy': expect.stringContaining(`default-src 'self'`) as string,
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    })
})

test('with @fastify/swagger, whose document leaves the routes to their own', async () => {
  const opened = await openApiApp({
    async prepare(bus, app) {
      subscribe(bus)
      await app.register(swagger, { openapi: { openapi: '3.1.0' } })
      app.get('/payments', { schema: { summary: 'Payments' } }, async () => [])
    },
    api: { health: true },
  })
  await expectWorks(opened)
  expect(Object.keys(opened.app.swagger().paths ?? {})).toEqual(['/payments'])
})

test('with @fastify/under-pressure, which refuses in the same form', async () => {
  let isHealthy = true
  const opened = await openApiApp({
    async prepare(bus, app) {
      subscribe(bus)
      await app.register(underPressure, {
        healthCheck: async () => isHealthy,
        healthCheckInterval: 20,
        retryAfter: 7,
      })
    },
  })
  await expectWorks(opened)
  isHealthy = false
  await expect
    .poll(async () => (await opened.get('/bus/api/access')).statusCode, { timeout: 10_000 })
    .toBe(503)
  const refused = await opened.get('/bus/api/access')
  expect(refused.json()).toEqual({
    statusCode: 503,
    code: 'BUS_HTTP_UNAVAILABLE',
    message: 'Service Unavailable',
  })
  expect(refused.headers['retry-after']).toBe('7')
})

test('routes say their action to hooks of the app', async () => {
  const actions: unknown[] = []
  const { get } = await openApiApp({
    prepare: (_bus, app) =>
      app.addHook('onRequest', async ({ routeOptions }) => {
        actions.push((routeOptions.config as { bossbus?: unknown }).bossbus)
      }),
  })
  await get('/bus/api/subscriptions')
  expect(actions).toEqual([{ action: 'subscriptions.list' }])
})
