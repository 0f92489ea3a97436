import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { bus as busPlugin, type ApiOptions } from '../../../src/fastify/index.ts'
import { busOptionNames } from '../../../src/bus-options.ts'
import { prometheusContentType } from '../../../src/index.ts'
import { newBus, testApp } from '../app.ts'
import { accessByHeaders as access, openApiApp } from './api-app.ts'

const nowhere = 'postgres://127.0.0.1:1/nowhere'

async function routesWith(api: ApiOptions | undefined): Promise<string> {
  const app = testApp()
  await app.register(busPlugin, newBus(nowhere, { api }))
  return app.printRoutes({ commonPrefix: false })
}

test('without the option there is no route', async () => {
  expect(await routesWith(undefined)).not.toMatch(/api|health/)
  expect(await routesWith({ access })).toMatch(/subscriptions/)
})

test.each([
  [{}, '`api.access`'],
  [{ health: false }, '`api.access`'],
  [{ health: {} }, '`api.access`'],
  [{ access: true }, '`api.access`'],
  [{ access: 'production' }, '`api.access`'],
  [true, '`api`'],
  [null, '`api`'],
  [{ access, prefix: 'bus' }, '`api.prefix`'],
  [{ access, prefix: '/bus/' }, '`api.prefix`'],
  [{ access, prefix: '/:bus' }, '`api.prefix`'],
  [{ access, prefix: '' }, '`api.prefix`'],
  [{ access, path: '/bus' }, '`path`'],
  [{ authorize: access }, '`authorize`'],
  [{ access, readOnly: 'yes' }, '`api.readOnly`'],
  [{ health: 'health' }, '`api.health`'],
  [{ health: '/' }, '`api.health`'],
  [{ health: 1 }, '`api.health`'],
  [{ health: { live: 1 } }, '`api.health.live`'],
  [{ health: { started: true } }, '`started`'],
  [{ metrics: 'metrics' }, '`api.metrics`'],
  [{ metrics: {} }, '`api.metrics`'],
  [{ health: false, metrics: false }, '`api.access`'],
])('without anything to serve, or with a bad option, it is refused: %o', async (api, part) => {
  const app = testApp()
  const registering = app.register(busPlugin, newBus(nowhere, { api: api as never }))
  await expect(registering).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    message: expect.stringContaining(part) as string,
  })
  expect(app.printRoutes()).not.toContain('subscriptions')
})

test('each probe has its switch and its path', async () => {
  for (const [health, paths] of [
    [true, ['/health/live', '/health/ready']],
    ['/probes', ['/probes/live', '/probes/ready']],
    [{ live: true }, ['/health/live']],
    [{ ready: '/readyz' }, ['/readyz']],
    [{ live: '/livez', ready: '/readyz' }, ['/livez', '/readyz']],
    [{ live: false, ready: true }, ['/health/ready']],
  ] as const) {
    const app = testApp()
    await app.register(busPlugin, newBus(nowhere, { api: { health } }))
    const all = ['/health/live', '/health/ready', '/probes/live', '/probes/ready', '/livez', '/readyz']
    expect(all.filter((url) => app.hasRoute({ method: 'GET', url }))).toEqual(paths)
    expect(app.printRoutes()).not.toContain('subscriptions')
  }
})

test('Prometheus scrapes what bus.metrics() says, where the switch or a path says', async () => {
  const { app } = await openApiApp({ api: { access: () => undefined, metrics: true } })
  const answer = await app.inject('/metrics')
  expect([answer.statusCode, answer.headers['content-type']]).toEqual([200, prometheusContentType])
  expect(answer.body).toMatch(/^# HELP [^]*\n# TYPE [^]*bossbus_build_info\{/)
  expect((await app.inject('/health/live')).statusCode).toBe(404)
  const other = testApp()
  await other.register(busPlugin, newBus(nowhere, { api: { metrics: '/bus/metrics' } }))
  expect(other.hasRoute({ method: 'GET', url: '/bus/metrics' })).toBe(true)
  expect(other.hasRoute({ method: 'GET', url: '/metrics' })).toBe(false)
})

test('the probes answer anybody, and say nothing but whether', async () => {
  const { app, bus } = await openApiApp({ api: { access: () => undefined, health: true } })
  for (const [url, body] of [
    ['/health/live', { live: true, state: 'started' }],
    ['/health/ready', { ready: true, state: 'started', database: 'up' }],
  ] as const) {
    const answer = await app.inject(url)
    expect([answer.statusCode, answer.json(), answer.headers['cache-control']]).toEqual([
      200,
      body,
      'no-store',
    ])
  }
  await bus.stop()
  expect((await app.inject('/health/ready')).statusCode).toBe(503)
  expect((await app.inject('/health/live')).statusCode).toBe(200)
})

test('in development who sits at the machine may do everything, and nobody else anything', async () => {
  const { app, bus } = await openApiApp({ api: { access: 'development' } })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  async function send(method: string, path: string, headers: Record<string, string>, body?: object) {
    const sent = httpRequest({
      port,
      host: '127.0.0.1',
      method,
      path,
      headers: { 'content-type': 'application/json', ...headers },
    })
    sent.end(body === undefined ? undefined : JSON.stringify(body))
    const [response] = (await once(sent, 'response')) as [IncomingMessage]
    response.resume()
    return response.statusCode
  }
  const event = { type: 'note', tenantId: 'acme', payload: 1 }
  expect(await send('GET', '/bus/api/access', {})).toBe(200)
  expect(await send('POST', '/bus/api/events', {}, { event })).toBe(200)
  expect(await bus.audit.list()).toMatchObject([{ by: 'development', action: 'publishByHand' }])
  for (const headers of [
    { host: 'evil.example' },
    { 'x-forwarded-for': '10.0.0.7' },
    { forwarded: 'for=10.0.0.7' },
  ] as const) {
    expect([headers, await send('GET', '/bus/api/access', headers)]).toEqual([headers, 403])
    expect([headers, await send('POST', '/bus/api/events', headers, { event })]).toEqual([headers, 403])
  }
  // A page of another origin, in a browser on this machine: where the app allows other origins, it could read as well.
  expect(await send('POST', '/bus/api/events', { 'sec-fetch-site': 'cross-site' }, { event })).toBe(403)
  expect(await send('GET', '/bus/api/access', { origin: 'https://evil.example' })).toBe(403)
  expect(
    await send('GET', '/bus/api/access', { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' }),
  ).toBe(403)
  expect(await send('GET', '/bus/api/access', { origin: `http://127.0.0.1:${port}` })).toBe(200)
  // A link to it.
  expect(await send('GET', '/bus/api/access', { 'sec-fetch-site': 'cross-site' })).toBe(200)
  const elsewhere = await app.inject({ url: '/bus/api/access', remoteAddress: '10.0.0.7' })
  expect(elsewhere.statusCode).toBe(403)
  expect(await bus.events.find()).toHaveLength(1)
})

test.each(busOptionNames.filter((name) => !['defaults', 'logger', 'drizzle'].includes(name)))(
  'the plugin hands the option %s of createBus on',
  async (name) => {
    const bad = name === 'telemetry' || name === 'retention' ? { unknown: 1 } : Symbol(name)
    const registering = testApp().register(busPlugin, { ...newBus(nowhere), [name]: bad } as never)
    await expect(Promise.resolve(registering)).rejects.toMatchObject({
      code: expect.stringMatching(/^BUS_/) as string,
    })
  },
)
