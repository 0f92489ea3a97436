import { bus as busPlugin } from '../../src/fastify/index.ts'
import type { events } from '../../src/demo/events.ts'
import { drizzle } from 'drizzle-orm/postgres-js'
import type { FastifyInstance } from 'fastify'
import { expect, test } from 'vitest'
import { fromCloudEvent, fromCloudEventHeaders } from '../../src/index.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { newBus, somePayment, testApp } from './app.ts'

const cloudEvent = {
  specversion: '1.0',
  id: '1',
  source: 'https://partner.example/payments',
  type: 'payment.paid',
  data: somePayment().payload,
}

/** The receiver of docs/cloudevents.md. */
async function receiver(): Promise<{ app: FastifyInstance; database: TestDatabase }> {
  const database = await createTestDatabase()
  const db = drizzle(database.sql)
  const app = testApp()
  await app.register(busPlugin, newBus(database.url))
  app.post('/events', async (request) => {
    const { event } = fromCloudEvent<typeof events>(request.body, { tenantId: 'acme' })
    return db.transaction(async (tx) => request.bus.publish(tx, event))
  })
  app.post('/binary', async (request) => {
    const given = fromCloudEventHeaders(request.headers, request.body, 'http')
    const { event } = fromCloudEvent<typeof events>(given, { tenantId: 'acme' })
    return db.transaction(async (tx) => request.bus.publish(tx, event))
  })
  return { app, database }
}

const structured = { 'content-type': 'application/cloudevents+json; charset=utf-8' }

test('a receiver takes CloudEvents in structured and in binary mode', async () => {
  const { app, database } = await receiver()
  const answer = await app.inject({
    method: 'POST',
    url: '/events',
    headers: structured,
    payload: JSON.stringify(cloudEvent),
  })
  expect(answer).toMatchObject({ statusCode: 200 })
  expect(answer.json()).toMatchObject({ duplicate: false })
  const { data, ...attributes } = { ...cloudEvent, id: '2' }
  const headers = Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce-${name}`, value]))
  expect(
    await app.inject({ method: 'POST', url: '/binary', headers, payload: data as object }),
  ).toMatchObject({ statusCode: 200 })
  expect(await database.count('select count(*) from bus.events')).toBe(2)
})

test.each<[string, number, string | undefined, string]>([
  ['no CloudEvent', 400, 'BUS_INVALID_CLOUD_EVENT', '{}'],
  ['a list', 400, 'BUS_INVALID_CLOUD_EVENT', '[]'],
  ['an older version', 400, 'BUS_INVALID_CLOUD_EVENT', JSON.stringify({ ...cloudEvent, specversion: '0.3' })],
  [
    'a day that is none',
    400,
    'BUS_INVALID_CLOUD_EVENT',
    JSON.stringify({ ...cloudEvent, time: '2020-02-30T00:00:00Z' }),
  ],
  ['an unknown type', 400, 'BUS_UNKNOWN_EVENT_TYPE', JSON.stringify({ ...cloudEvent, type: 'no.such' })],
  [
    'a payload that does not fit',
    400,
    'BUS_INVALID_EVENT',
    JSON.stringify({ ...cloudEvent, data: { amountCents: 'x' } }),
  ],
  [
    'an extension that is too long',
    400,
    'BUS_INVALID_EVENT',
    JSON.stringify({ ...cloudEvent, correlationid: 'x'.repeat(256) }),
  ],
  ['no JSON', 400, undefined, '{'],
  ['a prototype', 400, undefined, '{"__proto__":{"a":1}}'],
  ['nothing', 400, 'FST_ERR_CTP_EMPTY_JSON_BODY', ''],
  [
    'a body beyond the limit',
    413,
    'FST_ERR_CTP_BODY_TOO_LARGE',
    JSON.stringify({ ...cloudEvent, data: 'x'.repeat(1_100_000) }),
  ],
  [
    'a payload beyond the limit',
    413,
    'BUS_PAYLOAD_TOO_LARGE',
    JSON.stringify({ ...cloudEvent, data: { ...somePayment().payload, verifiedBy: 'x'.repeat(300_000) } }),
  ],
])('a receiver answers %s with %i', async (_, statusCode, code, payload) => {
  const { app, database } = await receiver()
  const answer = await app.inject({ method: 'POST', url: '/events', headers: structured, payload })
  expect(answer.statusCode).toBe(statusCode)
  expect(answer.json()).toMatchObject({ statusCode, ...(code !== undefined && { code }) })
  expect(await database.count('select count(*) from bus.events')).toBe(0)
})

test('a parser of the app for CloudEvents goes before that of the plugin', async () => {
  const { url } = await createTestDatabase()
  const app = testApp()
  await app.register(busPlugin, newBus(url))
  app.addContentTypeParser('application/cloudevents+json', { parseAs: 'string' }, (_request, _body, done) =>
    done(null, 'own'),
  )
  app.post('/events', (request) => ({ got: request.body }))
  const answer = await app.inject({
    method: 'POST',
    url: '/events',
    headers: { 'content-type': 'application/cloudevents+json' },
    payload: '{}',
  })
  expect(answer.json()).toEqual({ got: 'own' })
})
