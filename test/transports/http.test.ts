import { generateKeyPairSync, randomBytes, verify } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HTTP } from 'cloudevents'
import { Webhook } from 'standardwebhooks'
import { describe, expect, onTestFinished, test } from 'vitest'
import { fromCloudEvent, fromCloudEventHeaders, type StoredEvent } from '../../src/index.ts'
import { transportContract, type ContractMessage } from '../../src/testing/index.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { http, type HttpOptions } from '../../src/transports/adapters/http.ts'
import { transportFromUrl, type PublishResult, type Transport } from '../../src/transports/index.ts'
import { retryAfterOf } from '../../src/transports/http/post.ts'

interface Received {
  readonly headers: Record<string, string>
  readonly body: string
}

interface Receiver {
  readonly url: string
  readonly requests: Received[]
}

type Answer = (request: Received, response: ServerResponse) => void

async function startReceiver(
  answer: Answer = (_, response) => void response.writeHead(204).end(),
): Promise<Receiver> {
  const requests: Received[] = []
  const server = createServer((request, response) => {
    void bodyOf(request).then((body) => {
      const received = { headers: request.headers as Record<string, string>, body }
      requests.push(received)
      answer(received, response)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, requests }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

function transportTo(url: string, options: Partial<HttpOptions> = {}): Transport {
  const transport = http({ url, allowPrivate: true, ...options })
  onTestFinished(async () => transport.close())
  return transport
}

const signal = new AbortController().signal

async function send(transport: Transport, ...events: StoredEvent[]) {
  return transport.publish(events, { signal })
}

describe('the contract', () => {
  const receivers = new Map<Transport, Receiver>()
  const cases = transportContract({
    create: async () => {
      const receiver = await startReceiver()
      const transport = transportTo(receiver.url, { maxBytes: 100_000 })
      receivers.set(transport, receiver)
      return transport
    },
    receive: async (transport) =>
      (receivers.get(transport)?.requests ?? []).map(({ body }): ContractMessage => {
        const { id, data } = JSON.parse(body) as { id: string; data: unknown }
        return { id, payload: data }
      }),
    createUnreachable: () => transportTo('http://127.0.0.1:9/'),
    tooLargeBytes: 100_000,
  })
  test.each(cases)('$name', async ({ run }) => expect(run()).resolves.toBeUndefined())
})

const symmetric = `whsec_${randomBytes(32).toString('base64')}`

test('the package standardwebhooks verifies each request, with either of two keys', async () => {
  const { url, requests } = await startReceiver()
  const older = `whsec_${randomBytes(24).toString('base64')}`
  const event = contractEvent({ payload: { text: 'ü 漢 🚀' } })
  expect(await send(transportTo(url, { secrets: [symmetric, older] }), event)).toEqual([
    { status: 'delivered' },
  ])
  const [{ headers, body }] = requests as [Received]
  for (const secret of [symmetric, older])
    expect(new Webhook(secret).verify(body, headers)).toMatchObject({ id: event.id })
  expect(() => new Webhook(`whsec_${randomBytes(24).toString('base64')}`).verify(body, headers)).toThrow(
    /signature/i,
  )
  expect(headers['webhook-id']).toBe(event.id)
})

test('an asymmetric key signs as v1a', async () => {
  const { url, requests } = await startReceiver()
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const seed = privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(16)
  const secret = `whsk_${seed.toString('base64')}`
  await send(transportTo(url, { secrets: [secret] }), contractEvent({}))
  const [{ headers, body }] = requests as [Received]
  const [version, signature = ''] = (headers['webhook-signature'] ?? '').split(',')
  expect(version).toBe('v1a')
  const text = Buffer.from(`${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`)
  expect(verify(null, text, publicKey, Buffer.from(signature, 'base64'))).toBe(true)
})

test.each(['structured', 'binary'] as const)('the official SDK reads the envelope %s', async (envelope) => {
  const { url, requests } = await startReceiver()
  const event = contractEvent({ tenantId: 'ü', orderingKey: 'a b', payload: { n: [1, null] } })
  await send(transportTo(url, { envelope }), event)
  const [{ headers, body }] = requests as [Received]
  const read = HTTP.toEvent({ headers, body }) as Record<string, unknown>
  // The SDK leaves headers percent-encoded.
  const texts = ['tenantid', 'partitionkey'].map((name) => [name, decodeURIComponent(String(read[name]))])
  expect({ ...Object.fromEntries(texts), id: read['id'], type: read['type'], data: read['data'] }).toEqual({
    id: event.id,
    type: event.type,
    data: event.payload,
    tenantid: 'ü',
    partitionkey: 'a b',
  })
  const own =
    envelope === 'structured'
      ? (JSON.parse(body) as unknown)
      : fromCloudEventHeaders(headers, JSON.parse(body), 'http')
  expect(fromCloudEvent(own).event).toMatchObject({
    tenantId: 'ü',
    orderingKey: 'a b',
    payload: { n: [1, null] },
  })
})

test('the envelope raw has the payload alone', async () => {
  const { url, requests } = await startReceiver()
  const event = contractEvent({ payload: { n: 1 } })
  await send(transportTo(url, { envelope: 'raw', headers: { authorization: 'Bearer x' } }), event)
  expect(requests[0]).toMatchObject({
    body: '{"n":1}',
    headers: {
      id: event.id,
      type: event.type,
      'content-type': 'application/json',
      authorization: 'Bearer x',
    },
  })
})

test.each([
  [200, 'delivered', undefined],
  [202, 'delivered', undefined],
  [301, 'retry', undefined],
  [400, 'retry', undefined],
  [404, 'retry', undefined],
  [500, 'retry', undefined],
  [429, 'throttled', 5],
  [502, 'throttled', 5],
  [503, 'throttled', 5],
  [504, 'throttled', 5],
  [410, 'rejected', undefined],
  [413, 'rejected', undefined],
])('the status %i means %s', async (status, result, seconds) => {
  const { url } = await startReceiver((_, response) => void response.writeHead(status).end('because\n of it'))
  const [got] = await send(transportTo(url), contractEvent({}))
  expect(got).toMatchObject({ status: result, ...(seconds === undefined ? {} : { seconds }) })
  const reason = String('error' in (got ?? {}) ? (got as { error: unknown }).error : '')
  expect(reason).toContain(result === 'delivered' ? '' : `${status}: because of it`)
})

test.each([
  [429, '17', 17],
  [500, '3', 3],
  [503, () => new Date(Date.now() + 60_000).toUTCString(), 60],
  [503, 'soon', 5],
] as const)('the status %i with retry-after %s is a pause', async (status, retryAfter, seconds) => {
  const startedAt = performance.now()
  const text = typeof retryAfter === 'string' ? retryAfter : retryAfter()
  const { url } = await startReceiver(
    (_, response) => void response.writeHead(status, { 'retry-after': text }).end(),
  )
  const [got] = await send(transportTo(url), contractEvent({}))
  const { seconds: pause } = got as Extract<PublishResult, { status: 'throttled' }>
  const elapsed = (performance.now() - startedAt) / 1000
  // A date has whole seconds.
  expect(pause).toBeLessThanOrEqual(seconds)
  expect(pause).toBeGreaterThanOrEqual(
    typeof retryAfter === 'string' ? seconds : Math.floor(seconds - elapsed) - 1,
  )
})

test.each([
  [undefined, undefined],
  ['', undefined],
  ['-1', undefined],
  ['1.5', undefined],
  ['0', 0],
  ['Thu, 01 Jan 1970 00:00:00 GMT', 0],
])('retry-after %s is %s', (header, seconds) => {
  expect(retryAfterOf(header)).toBe(seconds)
})

test('an answer that does not come in time is a failure', async () => {
  const { url } = await startReceiver(() => {})
  const startedAt = performance.now()
  const [got] = await send(transportTo(url, { timeoutSeconds: 1 }), contractEvent({}))
  expect(got).toMatchObject({ status: 'retry', error: { name: 'TimeoutError' } })
  expect(performance.now() - startedAt).toBeGreaterThan(900)
})

test('an answer without an end is cut off', async () => {
  const { url } = await startReceiver((_, response) => {
    response.writeHead(200)
    const timer = setInterval(() => response.write('x'.repeat(10_000)), 1)
    response.on('close', () => clearInterval(timer))
  })
  expect(await send(transportTo(url), contractEvent({}))).toEqual([{ status: 'delivered' }])
})

test('a key stops at the first event that fails; others go on', async () => {
  const { url, requests } = await startReceiver(({ body }, response) => {
    const { data } = JSON.parse(body) as { data: { n: number } }
    response.writeHead(data.n === 2 ? 500 : 204).end()
  })
  // 0 2 4 6 of one key, 1 3 5 7 of another.
  const events = manyEvents(8, (n) => ({ orderingKey: `key-${n % 2}` }))
  const results = await send(transportTo(url), ...events)
  expect(results.map(({ status }) => status)).toEqual([
    ...['delivered', 'delivered', 'retry', 'delivered', 'retry', 'delivered', 'retry', 'delivered'],
  ])
  const sent = requests.map(({ body }) => (JSON.parse(body) as { data: { n: number } }).data.n)
  expect(sent.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 5, 7])
})

test.each<[string, Record<string, unknown>]>([
  ['no url', { url: undefined }],
  ['an inner url', { url: 'http://127.0.0.1/', allowPrivate: false }],
  ['an unknown option', { retries: 1 }],
  ['a secret of another kind', { secrets: ['sk_live_1'] }],
  ['a secret that is too short', { secrets: ['whsec_AAAA'] }],
  ['eleven secrets', { secrets: Array.from({ length: 11 }, () => symmetric) }],
  ['a header of its own', { headers: { 'webhook-id': '1' } }],
  ['a header with a line end', { headers: { 'x-a': 'b\r\nx-c: d' } }],
  ['no time', { timeoutSeconds: 0 }],
  ['another envelope', { envelope: 'xml' }],
  [
    'a claim check without a place for it',
    { envelope: 'raw', claimCheck: { store: async () => 's3://a/b' } },
  ],
])('%s is refused', (_, options) => {
  const given = { url: 'https://example.com/', ...options }
  expect(() => http(given as unknown as HttpOptions)).toThrow(
    expect.objectContaining({ code: 'url' in options ? 'BUS_URL_NOT_ALLOWED' : 'BUS_INVALID_OPTION' }),
  )
})

test('a refused secret is not in the message', () => {
  expect(() => http({ url: 'https://example.com/', secrets: ['whsec_hunter2'] })).toThrow(/^(?!.*hunter2)/)
})

test('a URL has its options behind the #, and keeps its own parameters', async () => {
  const { url, requests } = await startReceiver()
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-secret-'))
  onTestFinished(async () => rm(folder, { recursive: true }))
  await writeFile(join(folder, 'secret'), `${symmetric}\n`)
  const transport = transportFromUrl(
    `${url}?token=1#allowPrivate=true&secretFile=${join(folder, 'secret')}&envelope=binary`,
  )
  onTestFinished(async () => transport.close())
  await send(transport, contractEvent({}))
  const [{ headers, body }] = requests as [Received]
  expect(headers['ce-type']).toBe('contract.checked')
  expect(new Webhook(symmetric).verify(body, headers)).toEqual({ n: 1 })
})

test.each([
  'https://example.com/#secretFile=/does/not/exist',
  'https://example.com/#envelop=binary',
  'https://example.com/#envelope=xml',
  'https://127.0.0.1/',
  'https://user:hunter2@example.com/',
])('%s is refused', (url) => {
  expect(() => transportFromUrl(url)).toThrow(expect.objectContaining({ code: 'BUS_INVALID_TRANSPORT_URL' }))
  expect(() => transportFromUrl(url)).toThrow(/^(?!.*hunter2)/)
})
