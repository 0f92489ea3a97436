import { createHmac, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { CloudEvent, HTTP } from 'cloudevents'
import fastify from 'fastify'
import { expect, onTestFinished, test } from 'vitest'
import { bus as busPlugin, receiveRoute, type AppBus } from '../../src/fastify/index.ts'
import {
  bearerToken,
  cloudEvents,
  github,
  httpSource,
  standardWebhooks,
  stripe,
  type HttpSource,
  type HttpSourceOptions,
  type VerifyRequest,
} from '../../src/transports/adapters/http-source.ts'
import { webhookSigner } from '../../src/transports/http/signature.ts'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'

const url = 'https://shop.example/hooks/orders'
const now = (): number => Math.floor(Date.now() / 1000)

interface Scene {
  readonly database: TestDatabase
  readonly bus: PaymentBus
  readonly source: HttpSource
  readonly post: (body: string | Uint8Array, headers?: Record<string, string>) => Promise<Response>
  readonly stored: () => Promise<Record<string, unknown>[]>
}

async function receiving(
  verify: VerifyRequest,
  options: Partial<HttpSourceOptions> & Partial<Parameters<PaymentBus['receive']>[0]> = {},
): Promise<Scene> {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const {
    map = (message) => ({ type: 'note', tenantId: 'a', payload: Buffer.from(message.body).toString() }),
    ...rest
  } = options
  const source = httpSource({ verify, ...rest })
  bus.receive({ name: 'hooks', from: source, map })
  await bus.start()
  return {
    ...{ database, bus, source },
    post: async (body, headers = {}) =>
      source.handle(new Request(url, { method: 'POST', headers, body: Buffer.from(body) })),
    stored: async () =>
      database.rows(
        'select idempotency_key as key, event_id, payload, type, tenant_id from bus.events order by id',
      ),
  }
}

/** How many verified messages there are; 'refused' with its status. */
async function verdict(
  verify: VerifyRequest,
  headers: Record<string, string>,
  body: string | Uint8Array,
): Promise<number | string | undefined> {
  try {
    const messages = await verify({ path: '/', headers, body: Buffer.from(body) })
    return messages?.[0]?.id ?? messages?.length
  } catch (error) {
    return (error as { statusCode?: number }).statusCode ?? String(error)
  }
}

const hmacSecret = `whsec_${randomBytes(24).toString('base64')}`
const otherSecret = `whsec_${randomBytes(32).toString('base64')}`
const pair = generateKeyPairSync('ed25519')
const publicKey = `whpk_${pair.publicKey.export({ format: 'der', type: 'spki' }).subarray(-32).toString('base64')}`
const privateKey = `whsk_${pair.privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-32).toString('base64')}`

function signedHeaders(
  body: string,
  options: { secrets?: readonly string[]; id?: string; at?: number; prefix?: string } = {},
): Record<string, string> {
  const { secrets = [hmacSecret], id = 'msg_1', at = now(), prefix = 'webhook' } = options
  return {
    [`${prefix}-id`]: id,
    [`${prefix}-timestamp`]: String(at),
    [`${prefix}-signature`]: secrets
      .map((secret) => webhookSigner(secret)(id, at, Buffer.from(body)))
      .join(' '),
  }
}

test('Standard Webhooks are verified with each key, and refused otherwise', async () => {
  const body = '{"a":1}'
  const verify = standardWebhooks({ secrets: [otherSecret, hmacSecret, publicKey] })
  const good = signedHeaders(body)
  expect(await verdict(verify, good, body)).toBe('msg_1')
  expect(await verdict(verify, signedHeaders(body, { secrets: [privateKey] }), body)).toBe('msg_1')
  expect(await verdict(verify, signedHeaders(body, { prefix: 'svix' }), body)).toBe('msg_1')
  const unknown = `whsec_${randomBytes(24).toString('base64')}`
  expect(await verdict(verify, signedHeaders(body, { secrets: [unknown, hmacSecret] }), body)).toBe('msg_1')
  expect(await verdict(verify, signedHeaders(body, { at: now() - 290 }), body)).toBe('msg_1')
  for (const [what, headers, of = body] of [
    ['another key', signedHeaders(body, { secrets: [unknown] })],
    ['another body', good, '{"a":2}'],
    ['another id', { ...good, 'webhook-id': 'msg_2' }],
    ['another time', { ...good, 'webhook-timestamp': String(now() - 1) }],
    [
      'the wrong version',
      { ...good, 'webhook-signature': (good['webhook-signature'] ?? '').replace('v1,', 'v1a,') },
    ],
    ['a cut signature', { ...good, 'webhook-signature': (good['webhook-signature'] ?? '').slice(0, -8) }],
    ['no signature at all', { ...good, 'webhook-signature': '' }],
    ['commas', { ...good, 'webhook-signature': 'v1,,,, v1a,' }],
    ['many before it', { ...good, 'webhook-signature': `${'v1,x '.repeat(50)}${good['webhook-signature']}` }],
  ] as readonly [string, Record<string, string>, string?][])
    expect([what, await verdict(verify, headers, of)]).toEqual([what, undefined])
  for (const [what, headers] of [
    ['too old', signedHeaders(body, { at: now() - 400 })],
    ['from the future', signedHeaders(body, { at: now() + 400 })],
    ['no time', { ...good, 'webhook-timestamp': '1e3' }],
    ['an id with a point', signedHeaders(body, { id: 'a.1' })],
    ['no id', { ...good, 'webhook-id': '' }],
    ['nothing', {}],
  ] as const)
    expect([what, await verdict(verify, headers, body)]).toEqual([what, 401])
  expect(
    await verdict(
      standardWebhooks({ secrets: hmacSecret, toleranceSeconds: 1000 }),
      signedHeaders(body, { at: now() - 400 }),
      body,
    ),
  ).toBe('msg_1')
})

test('the example of the specification of Standard Webhooks is verified', async () => {
  // Of the reference implementations; its time is of 2021.
  const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
  const [id, at, body] = ['msg_p5jXN8AQM9LWM0D4loKWxJek', 1_614_265_330, '{"test": 2432232314}']
  expect(webhookSigner(secret)(id, at, Buffer.from(body))).toBe(
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
  )
  const headers = {
    'webhook-id': id,
    'webhook-timestamp': String(at),
    'webhook-signature': 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=',
  }
  expect(await verdict(standardWebhooks({ secrets: secret }), headers, body)).toBe(401)
})

test('signatures of Stripe are verified, with the id of the event as the id', async () => {
  const secret = 'whsec_test_secret_of_stripe'
  const body = '{"id":"evt_42","type":"charge.succeeded"}'
  const mac = (text: string, at: number): string =>
    createHmac('sha256', secret).update(`${at}.${text}`).digest('hex')
  const verify = stripe({ secrets: ['another secret of it', secret] })
  const at = now()
  const header = (value: string) => ({ 'stripe-signature': value })
  expect(await verdict(verify, header(`t=${at},v1=${mac(body, at)}`), body)).toBe('evt_42')
  expect(
    await verdict(verify, header(`t=${at}, v0=00, v1=${'0'.repeat(64)}, v1=${mac(body, at)}`), body),
  ).toBe('evt_42')
  expect(await verdict(verify, header(`t=${at},v1=${mac('no json', at)}`), 'no json')).toBe(1)
  expect(await verdict(verify, header(`t=${at},v1=${mac(body, at + 1)}`), body)).toBeUndefined()
  expect(await verdict(verify, header(`t=${at},v1=${mac(body, at)}`), `${body} `)).toBeUndefined()
  expect(await verdict(verify, header(`t=${at - 301},v1=${mac(body, at - 301)}`), body)).toBe(401)
  expect(await verdict(verify, header(`v1=${mac(body, at)}`), body)).toBe(401)
  expect(await verdict(verify, header(`t=${at},v0=${mac(body, at)}`), body)).toBe(401)
})

test('signatures of GitHub are verified, with the delivery as the id', async () => {
  // The example of its documentation.
  const verify = github({ secrets: "It's a Secret to Everybody" })
  const signature = 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17'
  const headers = { 'x-hub-signature-256': signature, 'x-github-delivery': 'guid-1' }
  expect(await verdict(verify, headers, 'Hello, World!')).toBe('guid-1')
  expect(await verdict(verify, headers, 'Hello, World?')).toBeUndefined()
  expect(
    await verdict(verify, { ...headers, 'x-hub-signature-256': signature.toUpperCase() }, 'Hello, World!'),
  ).toBe(401)
  expect(await verdict(verify, { 'x-hub-signature': signature }, 'Hello, World!')).toBe(401)
})

test('keys are checked when they are given, and never repeated', () => {
  const secret = 'a secret that nobody may see'
  for (const [make, said] of [
    [() => standardWebhooks({ secrets: secret }), 'whsec_'],
    [() => standardWebhooks({ secrets: privateKey }), 'private key'],
    [() => standardWebhooks({ secrets: `whpk_${randomBytes(31).toString('base64')}` }), 'whpk_'],
    [() => standardWebhooks({ secrets: [] }), '`secrets`'],
    [() => standardWebhooks({ secrets: Array.from({ length: 11 }, () => hmacSecret) }), '`secrets`'],
    [() => standardWebhooks({ secrets: hmacSecret, toleranceSeconds: 0 }), '`toleranceSeconds`'],
    [() => stripe({ secrets: 'short' }), '16 characters'],
    [() => stripe({ secrets: undefined as never }), '`secrets`'],
    [() => github({ secrets: [''] }), '`secrets`'],
    [() => github({ secret } as never), 'Did you mean `secrets`?'],
    [() => bearerToken({ secrets: 5 as never }), '`secrets`'],
    [() => bearerToken({ secrets: secret }), 'without spaces'],
    [() => cloudEvents({ verify: 'everyone' as never }), '`verify`'],
    [() => httpSource({ verify: undefined as never }), '`verify`'],
    [() => httpSource({ verify: github({ secrets: secret }), maxBodyBytes: 0 }), '`maxBodyBytes`'],
  ] as const) {
    expect(make).toThrow(said)
    expect(make).toThrow(expect.objectContaining({ code: 'BUS_INVALID_OPTION' }) as Error)
    expect(make).not.toThrow(secret)
  }
})

test('a request is answered with 204 after its event is committed, and is one event however often it is sent', async () => {
  const { post, stored } = await receiving(standardWebhooks({ secrets: hmacSecret }))
  const body = '{"a":1}'
  const answers = await Promise.all(Array.from({ length: 20 }, async () => post(body, signedHeaders(body))))
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([204]))
  expect(await stored()).toMatchObject([{ key: 'hooks:msg_1', payload: body }])
})

test('requests that are sent at the same time are stored together, and each is answered for itself', async () => {
  const { post, stored, database } = await receiving(standardWebhooks({ secrets: hmacSecret }), {
    map: ({ body }) => {
      const text = Buffer.from(body).toString()
      if (text === '"down"') throw Object.assign(new Error('lookup'), { code: 'ECONNREFUSED' })
      return { type: 'note', tenantId: 'a', payload: JSON.parse(text) as unknown }
    },
  })
  const bodies = Array.from({ length: 200 }, (_, n) =>
    n === 50 ? '"down"' : n === 60 ? '{' : JSON.stringify({ n }),
  )
  const answers = await Promise.all(
    bodies.map(async (body, n) => post(body, signedHeaders(body, { id: `msg_${n}` }))),
  )
  expect(answers.map(({ status }) => status).filter((status) => status !== 204)).toEqual([503])
  expect(answers[50]?.headers.get('retry-after')).toBe('5')
  expect(await stored()).toHaveLength(198)
  expect(await database.rows('select message_id, code from bus.quarantined_messages')).toEqual([
    { message_id: 'msg_60', code: 'BUS_MAP_FAILED' },
  ])
  const transactions = await database.count('select count(distinct xmin::text) from bus.events')
  expect(transactions).toBeLessThan(150)
})

test('what is not genuine or not acceptable is refused, and nothing is stored of it', async () => {
  const { post, stored, source, database } = await receiving(standardWebhooks({ secrets: hmacSecret }), {
    maxBodyBytes: 100,
  })
  const body = '{}'
  expect((await post(body, { ...signedHeaders(body), 'webhook-id': 'other' })).status).toBe(401)
  expect((await post(body)).status).toBe(401)
  expect((await post('x'.repeat(101), signedHeaders('x'.repeat(101)))).status).toBe(413)
  const streamed = new Request(url, {
    ...{ method: 'POST', headers: signedHeaders(body), duplex: 'half' },
    body: new ReadableStream({
      pull: (controller) => controller.enqueue(new Uint8Array(50)),
    }),
  })
  expect((await source.handle(streamed)).status).toBe(413)
  const got = await source.handle(new Request(url))
  expect([got.status, got.headers.get('allow')]).toEqual([405, 'POST'])
  expect(await stored()).toEqual([])
  expect(await database.count('select count(*) from bus.quarantined_messages')).toBe(0)
  // The positive twin.
  expect((await post(body, signedHeaders(body))).status).toBe(204)
  expect(await stored()).toHaveLength(1)
})

test('a verifier of ones own may refuse by its return, by a status, or by failing', async () => {
  const { post, stored, bus } = await receiving(({ headers }) => {
    if (headers['x-what'] === 'status') throw Object.assign(new Error('secret'), { statusCode: 403 })
    if (headers['x-what'] === 'fails') throw new Error('secret')
    return headers['x-what'] === 'good' ? [{ id: '1' }] : headers['x-what'] === 'none' ? [] : undefined
  })
  const answers = await Promise.all(
    ['return', 'status', 'fails', 'none', 'good'].map(async (what) => post('{}', { 'x-what': what })),
  )
  expect(answers.map(({ status }) => status)).toEqual([401, 403, 500, 204, 204])
  expect(await Promise.all(answers.map(async (answer) => answer.text()))).not.toContainEqual(
    expect.stringContaining('secret'),
  )
  expect(await stored()).toHaveLength(1)
  await bus.stop({ graceMs: 1000 })
  expect((await post('{}', { 'x-what': 'good' })).status).toBe(503)
})

test('a receiver that does not run here, and a database that is down, are answered with 503', async () => {
  const idle = httpSource({ verify: () => [{ id: '1' }] })
  const bus = testBus('postgres://nowhere.invalid/x')
  bus.receive({ name: 'hooks', from: idle })
  const request = (): Request => new Request(url, { method: 'POST', body: '{}' })
  expect((await idle.handle(request())).status).toBe(503)
  await expect(idle.check({ signal: new AbortController().signal })).rejects.toMatchObject({
    statusCode: 503,
  })
  const { source, database, stored } = await receiving(() => [{ id: '1' }])
  await source.check({ signal: new AbortController().signal })
  await database.rows('alter table bus.events rename to events_gone')
  expect((await source.handle(request())).status).toBe(503)
  await database.rows('alter table bus.events_gone rename to events')
  await until('it is taken again', async () => (await source.handle(request())).status === 204)
  expect(await stored()).toHaveLength(1)
})

test('CloudEvents over HTTP are taken as the official SDK sends them: binary, structured and in batches', async () => {
  const token = 'a-token-of-the-sender'
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const source = httpSource({ verify: cloudEvents({ verify: bearerToken({ secrets: token }) }) })
  bus.receive({ name: 'partners', from: source, tenantId: 'acme' })
  await bus.start()
  const authorization = `Bearer ${token}`
  const make = (id: string): CloudEvent<unknown> =>
    new CloudEvent({
      id,
      source: '/shop',
      type: 'payment.refunded',
      tenantid: 'rival',
      data: { paymentId: `é ${id}` },
    })
  const send = async (message: { headers: unknown; body: unknown }): Promise<number> => {
    const headers = { ...(message.headers as Record<string, string>), authorization }
    const body = typeof message.body === 'string' ? message.body : JSON.stringify(message.body)
    return (await source.handle(new Request(url, { method: 'POST', headers, body }))).status
  }
  const batch = {
    headers: { 'content-type': 'application/cloudevents-batch+json' },
    body: [make('3'), make('4'), { specversion: '1.0', id: 'x' }].map(
      (event) => JSON.parse(JSON.stringify(event)) as unknown,
    ),
  }
  for (let times = 0; times < 2; times += 1) {
    expect(await send(HTTP.binary(make('1')))).toBe(204)
    expect(await send(HTTP.structured(make('2')))).toBe(204)
    expect(
      await send({ ...batch, body: batch.body.map((event) => JSON.parse(JSON.stringify(event)) as unknown) }),
    ).toBe(204)
  }
  expect(
    await database.rows(
      'select tenant_id, idempotency_key as key, event_id as id, payload from bus.events order by id',
    ),
  ).toEqual(
    ['1', '2', '3', '4'].map((id) => ({
      ...{
        tenant_id: 'acme',
        key: `partners:/shop ${id}`,
        id: `/shop ${id}`,
        payload: { paymentId: `é ${id}` },
      },
    })),
  )
  expect(await database.rows('select code, received_count as count from bus.quarantined_messages')).toEqual([
    { code: 'BUS_INVALID_CLOUD_EVENT', count: 2 },
  ])
  expect(
    await database.count(`select count(*) from bus.quarantined_messages where headers ? 'authorization'`),
  ).toBe(0)
  const refused = {
    ...HTTP.binary(make('9')),
    headers: { ...HTTP.binary(make('9')).headers } as Record<string, string>,
  }
  const withToken = async (value: string, message = refused): Promise<number> =>
    (
      await source.handle(
        new Request(url, {
          method: 'POST',
          headers: { ...message.headers, authorization: value },
          body: '{}',
        }),
      )
    ).status
  expect(await withToken('Bearer another token')).toBe(401)
  expect(await withToken('')).toBe(401)
  expect(await send({ headers: { 'content-type': 'application/json' }, body: {} })).toBe(415)
  expect(await send({ headers: { 'content-type': 'application/cloudevents-batch+json' }, body: {} })).toBe(
    400,
  )
  expect(await send({ headers: { 'content-type': 'application/cloudevents+json' }, body: '{' })).toBe(400)
  expect(await database.count('select count(*) from bus.events')).toBe(4)
})

test('attributes in headers that a signature does not cover are not read', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const source = httpSource({ verify: standardWebhooks({ secrets: hmacSecret }) })
  bus.receive({ name: 'hooks', from: source, tenantId: 'acme' })
  await bus.start()
  const attributes = { id: '1', source: '/s', type: 'note', specversion: '1.0' }
  const send = async (body: string, headers: Record<string, string>): Promise<number> =>
    (
      await source.handle(
        new Request(url, { method: 'POST', headers: { ...signedHeaders(body), ...headers }, body }),
      )
    ).status
  const ce = Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce-${name}`, value]))
  expect(await send('{"a":1}', { ...ce, 'content-type': 'application/json' })).toBe(204)
  expect(await database.count('select count(*) from bus.events')).toBe(0)
  const structured = JSON.stringify({ ...attributes, data: 5 })
  expect(
    await send(structured, {
      ...signedHeaders(structured, { id: 'two' }),
      'content-type': 'application/cloudevents+json',
    }),
  ).toBe(204)
  expect(await database.rows('select payload, idempotency_key as key from bus.events')).toEqual([
    { payload: 5, key: 'hooks:two' },
  ])
})

test('a route of Fastify keeps the bytes of the body, whatever parsers the app has', async () => {
  const database = await createTestDatabase()
  const app = fastify()
  onTestFinished(async () => app.close())
  const bus = testBus(database.url)
  await app.register(busPlugin, { bus: bus as unknown as AppBus })
  const source = httpSource({ verify: standardWebhooks({ secrets: hmacSecret }), maxBodyBytes: 1000 })
  bus.receive({
    ...{ name: 'hooks', from: source },
    map: ({ body, from }) => ({
      type: 'note',
      tenantId: 'a',
      payload: `${from} ${Buffer.from(body).toString()}`,
    }),
  })
  app.post('/echo', (request) => request.body)
  await app.register(receiveRoute, { url: '/hooks', source, prefix: '/in' })
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  const post = async (body: string, headers: Record<string, string>): Promise<Response> =>
    fetch(`${address}/in/hooks?x=1`, { method: 'POST', headers, body })
  const odd = ' { "a" : 1.0 , "__proto__": {} }\n'
  for (const [n, type] of [
    'application/json',
    'text/plain',
    'application/x-www-form-urlencoded',
    'x/y',
  ].entries())
    expect((await post(odd, { 'content-type': type, ...signedHeaders(odd, { id: `m${n}` }) })).status).toBe(
      204,
    )
  expect((await post('', { ...signedHeaders('', { id: 'empty' }) })).status).toBe(204)
  expect((await post(odd, { 'content-type': 'application/json' })).status).toBe(401)
  const large = 'x'.repeat(1001)
  expect((await post(large, { 'content-type': 'text/plain', ...signedHeaders(large) })).status).toBe(413)
  expect(
    await (
      await fetch(`${address}/echo`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"a":1}',
      })
    ).json(),
  ).toEqual({ a: 1 })
  expect(
    (await database.rows('select payload from bus.events order by id')).map(({ payload }) => payload),
  ).toEqual([...Array.from({ length: 4 }, () => `/in/hooks ${odd}`), '/in/hooks '])
  for (const options of [
    { url: 'hooks', source },
    { url: '/hooks', source: {} as never },
    { url: '/', sauce: source } as never,
  ])
    await expect(fastify().register(receiveRoute, options).ready()).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
    })
})

test('a signature is an Ed25519 one of node:crypto, too', async () => {
  const [id, at, body] = ['m', now(), 'body']
  const signature = sign(null, Buffer.from(`${id}.${at}.${body}`), pair.privateKey).toString('base64')
  const headers = {
    'webhook-id': id,
    'webhook-timestamp': String(at),
    'webhook-signature': `v1a,${signature}`,
  }
  expect(await verdict(standardWebhooks({ secrets: publicKey }), headers, body)).toBe('m')
})
