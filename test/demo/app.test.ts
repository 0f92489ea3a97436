import type { FastifyInstance, LightMyRequestResponse } from 'fastify'
import { describe, expect, onTestFinished, test } from 'vitest'
import { buildApp, type AppOptions } from '../../src/demo/app.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { roomFor } from '../support/slowness.ts'
import { newPayment, verification, type OpenedCase, type Verified } from './payments.ts'

const someId = '7c1f4c43-5b34-4f0e-9d1a-5d5b7a0f3b52'

async function startDemo(databaseUrl: string, options: Partial<AppOptions> = {}): Promise<FastifyInstance> {
  const app = await buildApp({ databaseUrl, ...options })
  onTestFinished(async () => {
    await app.close()
  })
  await app.ready()
  return app
}

async function post(app: FastifyInstance, url: string, body: object): Promise<LightMyRequestResponse> {
  return app.inject({ method: 'POST', url, payload: body })
}

async function createPayment(app: FastifyInstance): Promise<string> {
  return (await post(app, '/payments', newPayment)).json<{ paymentId: string }>().paymentId
}

async function verify(
  app: FastifyInstance,
  paymentId: string,
  more: object = {},
): Promise<LightMyRequestResponse> {
  return post(app, `/payments/${paymentId}/verify`, { ...verification, ...more })
}

async function casesOf(app: FastifyInstance, paymentId: string): Promise<OpenedCase[]> {
  return (await app.inject(`/cases?paymentId=${paymentId}`)).json<OpenedCase[]>()
}

test('a verified payment has its case, shortly after', async () => {
  const { url, rows, count } = await createTestDatabase({ empty: true })
  const app = await startDemo(url)

  const created = await post(app, '/payments', newPayment)
  expect(created.statusCode).toBe(201)
  const { paymentId } = created.json<{ paymentId: string }>()
  expect(await casesOf(app, paymentId)).toEqual([])

  const verified = await verify(app, paymentId)
  const verifiedAt = performance.now()
  expect(verified.statusCode).toBe(200)
  const { eventId, ...answer } = verified.json<Verified>()
  expect(answer).toEqual({ paymentId, status: 'VERIFIED_PAID' })

  await until('the case is open', async () => (await casesOf(app, paymentId)).length > 0)
  const latencyMs = performance.now() - verifiedAt
  console.log(`the case was there ${latencyMs.toFixed(1)} ms after its payment was verified`)
  expect(latencyMs).toBeLessThan(roomFor(3000))
  expect(await casesOf(app, paymentId)).toEqual([
    { caseId: expect.any(String) as string, paymentId, tenantId: 'acme' },
  ])

  expect(await rows('select id, tenant_id, type, source, idempotency_key, payload from bus.events')).toEqual([
    {
      id: eventId,
      tenant_id: 'acme',
      type: 'payment.paid',
      source: 'payment-service',
      idempotency_key: `payment-paid-${paymentId}`,
      payload: { paymentId, amountCents: 1250, currency: 'EUR', verifiedBy: 'ada', method: 'bank-transfer' },
    },
  ])
  await until('the receipt is there', async () => (await count('select count(*) from bus.deliveries')) === 1)
})

test('verifying twice, one after the other or at once, changes nothing', async () => {
  const { url, count, rows } = await createTestDatabase()
  const app = await startDemo(url)
  const paymentId = await createPayment(app)
  const answers = await Promise.all(Array.from({ length: 5 }, async () => verify(app, paymentId)))
  answers.push(await verify(app, paymentId, { verifiedBy: 'bob' }))
  expect(answers.map(({ statusCode }) => statusCode)).toEqual([200, 200, 200, 200, 200, 200])
  expect(new Set(answers.map(({ body }) => body)).size).toBe(1)
  expect(await count('select count(*) from bus.events')).toBe(1)
  expect(await rows('select verified_by from demo.payments')).not.toEqual([{ verified_by: 'bob' }])

  // A second payment's case comes after whatever the first one's extra events would have done.
  const other = await createPayment(app)
  await verify(app, other)
  await until('the other case is open', async () => (await casesOf(app, other)).length > 0)
  await until('the first case is open', async () => (await casesOf(app, paymentId)).length > 0)
  expect(await count('select count(*) from demo.cases')).toBe(2)
})

test('an event that is delivered again opens no second case', async () => {
  const { url, db, count } = await createTestDatabase()
  const app = await startDemo(url)
  const paymentId = await createPayment(app)
  await verify(app, paymentId)
  await until('the case is open', async () => (await casesOf(app, paymentId)).length > 0)
  const payload = {
    paymentId,
    amountCents: 1250,
    currency: 'EUR',
    verifiedBy: 'ada',
    method: 'bank-transfer',
  }
  await db.transaction(async (tx) => app.bus.publish(tx, { type: 'payment.paid', tenantId: 'acme', payload }))
  await until('both are handled', async () => (await count('select count(*) from bus.deliveries')) === 2)
  expect(await casesOf(app, paymentId)).toHaveLength(1)
})

test('a transaction that fails leaves neither the status nor the event', async () => {
  const { url, count, rows } = await createTestDatabase()
  const app = await startDemo(url)
  const paymentId = await createPayment(app)
  // Fails at the commit, after the event was published.
  await rows(`create function demo.refuse() returns trigger language plpgsql as $$
    begin raise exception 'the secret of %', new.verified_by; end $$`)
  await rows(`create constraint trigger refuse after update on demo.payments
    deferrable initially deferred for each row execute function demo.refuse()`)
  const failed = await verify(app, paymentId)
  expect(failed.statusCode).toBe(500)
  expect(failed.body).not.toMatch(/secret|ada|update/)
  expect(await rows('select status, event_id from demo.payments')).toEqual([
    { status: 'CREATED', event_id: null },
  ])
  expect(await count('select count(*) from bus.events')).toBe(0)

  await rows('drop trigger refuse on demo.payments')
  expect((await verify(app, paymentId)).statusCode).toBe(200)
  expect(await rows('select status from demo.payments')).toEqual([{ status: 'VERIFIED_PAID' }])
  expect(await count('select count(*) from bus.events')).toBe(1)
})

describe('a payment that the tenant does not have', () => {
  test.each([
    ['another tenant', undefined, { tenantId: 'globex' }],
    ['an unknown payment', someId, {}],
    ['an id that is none', 'nope', {}],
  ])('is not found: %s', async (_, unknownId, more) => {
    const { url, count } = await createTestDatabase()
    const app = await startDemo(url)
    const paymentId = await createPayment(app)
    const refused = await verify(app, unknownId ?? paymentId, more)
    expect(refused.statusCode).toBe(404)
    expect(await count('select count(*) from bus.events')).toBe(0)
    expect((await verify(app, paymentId)).statusCode).toBe(200)
    expect(await count('select count(*) from bus.events')).toBe(1)
  })
})

test('what is no payment, verification or query is a bad request', async () => {
  const { url, count } = await createTestDatabase()
  const app = await startDemo(url)
  const bodies = [
    {},
    { ...newPayment, tenantId: '' },
    { ...newPayment, tenantId: 'nul \u0000' },
    { ...newPayment, tenantId: 'half \ud800' },
    { ...newPayment, tenantId: 'x'.repeat(256) },
    { ...newPayment, amountCents: 0 },
    { ...newPayment, amountCents: -5 },
    { ...newPayment, amountCents: 12.5 },
    { ...newPayment, amountCents: '1250' },
    { ...newPayment, amountCents: true },
    { ...newPayment, amountCents: 2 ** 60 },
    { ...newPayment, currency: 'euro' },
  ]
  for (const body of bodies) {
    expect([(await post(app, '/payments', body)).statusCode, body]).toEqual([400, body])
  }
  expect(await count('select count(*) from demo.payments')).toBe(0)
  const paymentId = await createPayment(app)
  expect(await count('select count(*) from demo.payments')).toBe(1)
  for (const missing of ['tenantId', 'verifiedBy', 'method']) {
    expect((await verify(app, paymentId, { [missing]: undefined })).statusCode).toBe(400)
  }
  for (const query of ['', '?paymentId=', '?paymentId=nope', `?paymentId=${someId}&paymentId=${someId}`]) {
    expect([(await app.inject(`/cases${query}`)).statusCode, query]).toEqual([400, query])
  }
  expect(await casesOf(app, someId)).toEqual([])
})

test('the health of the service is that of its bus', async () => {
  const { url } = await createTestDatabase()
  const app = await startDemo(url)
  const healthy = await app.inject('/health')
  expect(healthy.statusCode).toBe(200)
  expect(healthy.json()).toMatchObject({ ok: true, state: 'started', database: 'up' })
  await app.bus.stop()
  const unhealthy = await app.inject('/health')
  expect(unhealthy.statusCode).toBe(503)
  expect(unhealthy.json()).toMatchObject({ ok: false, state: 'stopped' })
})

test('any number of services start on an empty database at once', async () => {
  const { url } = await createTestDatabase({ empty: true })
  const apps = await Promise.all(Array.from({ length: 4 }, async () => startDemo(url)))
  for (const app of apps) expect((await post(app, '/payments', newPayment)).statusCode).toBe(201)
})
