import type { FastifyInstance, FastifyRequest } from 'fastify'
import { expect, test } from 'vitest'
import { bus as busPlugin, type ApiAccess, type ApiOptions } from '../../src/fastify/index.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { testBus } from '../support/bus.ts'
import { newBus, testApp } from './app.ts'

const nowhere = 'postgres://127.0.0.1:1/nowhere'

/** Lets in who says a name. */
const authorize = (request: FastifyRequest) => {
  const by = request.headers['x-user']
  return typeof by === 'string' ? { by } : undefined
}

async function open(api: ApiOptions) {
  const database = await createTestDatabase()
  const app = testApp()
  await app.register(busPlugin, newBus(database.url, { api }))
  app.bus.subscribe({ name: 'open-case', events: ['payment.paid'], concurrency: 3, handler: () => {} })
  await app.ready()
  return { app, database }
}

const post = async (
  app: FastifyInstance,
  url: string,
  payload: object = {},
  headers: Record<string, string> = {},
) => app.inject({ method: 'POST', url, payload, headers: { 'x-user': 'ana', ...headers } })

test('without the option there is no route', async () => {
  const app = testApp()
  await app.register(busPlugin, newBus(nowhere))
  expect(app.hasRoute({ method: 'GET', url: '/bus/subscriptions' })).toBe(false)
  expect(app.printRoutes()).not.toContain('subscriptions')
})

test.each([
  [{}, '`api.authorize`'],
  [{ authorize: true }, '`api.authorize`'],
  [true, '`api`'],
  [{ authorize, prefix: 'bus' }, '`api.prefix`'],
  [{ authorize, prefix: '/bus/' }, '`api.prefix`'],
  [{ authorize, path: '/bus' }, '`path`'],
])('without who may use it, or with a bad prefix, it is refused: %o', async (api, part) => {
  const app = testApp()
  const registering = app.register(busPlugin, newBus(nowhere, { api: api as never }))
  await expect(registering).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    message: expect.stringContaining(part) as string,
  })
  expect(app.printRoutes()).not.toContain('subscriptions')
})

test('subscriptions are listed and read as the bus does, with times as texts', async () => {
  const { app } = await open({ authorize })
  const headers = { 'x-user': 'ana' }
  const list = await app.inject({ url: '/bus/subscriptions', headers })
  expect(list.statusCode).toBe(200)
  expect(list.headers['cache-control']).toBe('no-store')
  expect(list.json()).toEqual({
    subscriptions: JSON.parse(JSON.stringify(await app.bus.subscriptions.list())) as unknown,
  })
  const one = await app.inject({ url: '/bus/subscriptions/open-case', headers })
  expect(one.json()).toMatchObject({
    name: 'open-case',
    state: 'active',
    options: { concurrency: 3 },
    instanceCount: 1,
  })
  const none = await app.inject({ url: '/bus/subscriptions/another', headers })
  expect(none.statusCode).toBe(404)
  expect(none.json()).toMatchObject({ statusCode: 404, code: 'BUS_SUBSCRIPTION_NOT_FOUND' })
})

test('a pause and a resumption are recorded by whom the hook names, whatever the body says', async () => {
  const { app } = await open({ authorize, prefix: '/ops/bus' })
  const url = '/ops/bus/subscriptions/open-case'
  const paused = await post(app, `${url}/pause`, { reason: 'an incident' })
  expect([paused.statusCode, paused.json()]).toEqual([200, { changed: true }])
  expect((await post(app, `${url}/pause`)).json()).toEqual({ changed: false })
  expect(await app.bus.subscriptions.get('open-case')).toMatchObject({
    pause: { by: 'ana', reason: 'an incident' },
  })
  expect((await post(app, `${url}/resume`, {}, { 'x-user': 'ben' })).json()).toEqual({ changed: true })
  const forged = await post(app, `${url}/pause`, { by: 'mallory' })
  expect([forged.statusCode, forged.json()]).toMatchObject([400, { code: 'BUS_INVALID_OPTION' }])
  expect((await app.bus.audit.list()).map(({ action, by }) => [action, by])).toEqual([
    ['subscriptions.resume', 'ben'],
    ['subscriptions.pause', 'ana'],
  ])
})

test('nobody is let in whom the hook does not name, and it hears what is asked for', async () => {
  const asked: ApiAccess[] = []
  const { app } = await open({
    authorize: (request, access) => {
      asked.push(access)
      if (request.headers['x-user'] === 'unknown')
        throw Object.assign(new Error('Who are you?'), { statusCode: 401 })
      return authorize(request)
    },
  })
  const url = '/bus/subscriptions/open-case/pause'
  const refused = await app.inject({ method: 'POST', url, payload: {} })
  expect([refused.statusCode, refused.json()]).toMatchObject([403, { error: 'Forbidden' }])
  expect((await app.inject({ url: '/bus/subscriptions' })).statusCode).toBe(403)
  expect((await post(app, url, {}, { 'x-user': 'unknown' })).statusCode).toBe(401)
  expect((await post(app, url, {}, { 'x-user': 'x'.repeat(256) })).statusCode).toBe(400)
  expect(asked.slice(0, 2)).toEqual([
    { action: 'subscriptions.pause', changes: true, subscription: 'open-case' },
    { action: 'subscriptions.list', changes: false, subscription: undefined },
  ])
  expect((await app.bus.subscriptions.get('open-case')).state).toBe('active')
  expect(await app.bus.audit.list()).toEqual([])
})

test.each([
  [undefined, undefined],
  ['text/plain', '{}'],
  ['application/x-www-form-urlencoded', 'reason=x'],
  ['application/jsonp', '{}'],
  ['multipart/form-data; boundary=x', '--x--'],
])('what a page of another origin may send without asking changes nothing: %s', async (type, payload) => {
  const { app } = await open({ authorize })
  const headers = { 'x-user': 'ana', ...(type === undefined ? {} : { 'content-type': type }) }
  const url = '/bus/subscriptions/open-case/pause'
  const { statusCode } = await app.inject({
    method: 'POST',
    url,
    headers,
    ...(payload === undefined ? {} : { payload }),
  })
  expect(statusCode).toBe(415)
  expect((await app.inject({ method: 'GET', url, headers: { 'x-user': 'ana' } })).statusCode).toBe(404)
  expect((await app.bus.subscriptions.get('open-case')).state).toBe('active')
})

test('a removal answers with its operation, or says why not', async () => {
  const { app, database } = await open({ authorize })
  const served = await post(app, '/bus/subscriptions/open-case/remove', { waiting: 'discard' })
  expect([served.statusCode, served.json()]).toMatchObject([409, { code: 'BUS_SUBSCRIPTION_SERVED' }])
  const gone = testBus(database.url)
  gone.subscribe({ name: 'old', events: ['note'], handler: () => {} })
  await gone.start()
  await gone.subscriptions.pause('old')
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'psql', '1')`,
  )
  await until('it waits', async () => (await gone.subscriptions.get('old')).waitingCount === 1)
  await gone.stop()
  const full = await post(app, '/bus/subscriptions/old/remove')
  expect([full.statusCode, full.json()]).toMatchObject([409, { code: 'BUS_SUBSCRIPTION_NOT_EMPTY' }])
  const bad = await post(app, '/bus/subscriptions/old/remove', { waiting: 'keep' })
  expect([bad.statusCode, bad.json()]).toMatchObject([400, { code: 'BUS_INVALID_OPTION' }])
  const removed = await post(app, '/bus/subscriptions/old/remove', {
    reason: 'renamed',
    waiting: { moveTo: 'open-case' },
  })
  expect(removed.statusCode).toBe(202)
  expect(removed.json()).toMatchObject({
    kind: 'remove',
    by: 'ana',
    reason: 'renamed',
    options: { moveTo: 'open-case' },
  })
  const { id } = removed.json<{ id: string }>()
  await until('it is done', async () => (await app.bus.operations.get(id)).state === 'done')
  expect((await app.bus.subscriptions.list()).map(({ name }) => name)).toEqual(['open-case'])
})

test('the parsers and the errors of the app are its own', async () => {
  const app = testApp()
  const { url } = await createTestDatabase()
  await app.register(busPlugin, newBus(url, { api: { authorize } }))
  app.post('/echo', async (request) => ({ body: request.body }))
  const echoed = await app.inject({
    method: 'POST',
    url: '/echo',
    payload: 'text',
    headers: { 'content-type': 'text/plain' },
  })
  expect(echoed.json()).toEqual({ body: 'text' })
})
