import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { toCloudEvent } from '../../src/index.ts'
import { transportContract, type ContractMessage } from '../../src/testing/index.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { redis, type RedisClient, type RedisOptions } from '../../src/transports/adapters/redis.ts'
import { transportFromUrl, type Transport } from '../../src/transports/index.ts'
import { brokerPrograms, freePort, startBroker, type Broker } from '../support/broker.ts'
import { countInOrder, forwardThroughKill } from '../support/forwarding.ts'

const { signal } = new AbortController()

const client: RedisClient = { call: async () => 'OK' }

describe('options', () => {
  test.each<readonly [string, unknown, string]>([
    ['none', undefined, 'options like { client }'],
    ['no client', {}, '`client`'],
    ['a client of something else', { client: { send: () => {} } }, '`client`'],
    ['an unknown key', { client, streams: 'a' }, '`stream`'],
    ['an empty stream', { client, stream: '' }, '`stream`'],
    ['no length', { client, maxLength: 0 }, '`maxLength`'],
    ['too few replicas', { client, replicas: -1 }, '`replicas`'],
    ['no time', { client, timeoutSeconds: 0 }, '`timeoutSeconds`'],
    ['an envelope of headers', { client, envelope: 'binary' }, '`envelope`'],
  ])('%s is refused', (_, options, message) => {
    expect(() => redis(options as RedisOptions)).toThrow(message)
  })
})

describe('URLs', () => {
  test.each([
    'redis://localhost',
    'redis://user:password@localhost:6379/3?stream=events&maxLength=1000000&replicas=1&envelope=raw',
    'rediss://localhost:6380',
  ])('%s is one', (url) => {
    expect(transportFromUrl(url)).toMatchObject({ name: 'redis', order: 'key' })
  })

  test.each([
    ['redis:///0', 'the host is missing'],
    ['redis://:secret@host,other', 'it has several hosts'],
    ['redis://:secret@host/zero', 'the path is the number of a database'],
    ['redis://:secret@host?streem=a', 'Did you mean `stream`?'],
    ['redis://:secret@host?maxLength=0', '`maxLength` is a whole number'],
    ['redis://:secret@host?envelope=binary', '`envelope` is structured or raw'],
  ])('%s is refused', (url, message) => {
    expect(() => transportFromUrl(url)).toThrow(message)
    expect(() => transportFromUrl(url)).not.toThrow('secret')
  })
})

const startRedis = async (more: readonly string[] = []): Promise<Broker> =>
  startBroker({
    program: brokerPrograms.redis,
    args: (port, folder) => [
      ...['--bind', '127.0.0.1', '--port', String(port), '--dir', folder],
      ...['--appendonly', 'yes', '--appendfsync', 'always', '--save', '', ...more],
    ],
  })

/** The fields of each entry. */
async function entriesOf(reader: Redis, stream: string): Promise<Record<string, string>[]> {
  return (await reader.xrange(stream, '-', '+')).map(([, fields]) =>
    Object.fromEntries(fields.flatMap((field, n) => (n % 2 === 0 ? [[field, fields[n + 1] ?? '']] : []))),
  )
}

const messageOf = ({ event = 'null' }: Record<string, string>): ContractMessage => {
  const { id, data } = JSON.parse(event) as { id: string; data: unknown }
  return { id, payload: data }
}

function newIoredis(port: number): Redis {
  const own = new Redis({ port, lazyConnect: false, maxRetriesPerRequest: 1, retryStrategy: () => 100 })
  own.on('error', () => {})
  onTestFinished(() => own.disconnect())
  return own
}

async function newNodeRedis(port: number): Promise<RedisClient> {
  const own = createClient({ url: `redis://127.0.0.1:${port}`, disableOfflineQueue: true })
  own.on('error', () => {})
  onTestFinished(() => own.destroy())
  const connecting = own.connect()
  connecting.catch(() => {})
  if (port > 1) await connecting
  return own
}

describe.skipIf(brokerPrograms.redis === undefined)('with a server', () => {
  let broker: Broker
  let reader: Redis
  let streamCount = 0
  const streams = new Map<Transport, string>()

  beforeAll(async () => {
    broker = await startRedis()
    reader = new Redis({ port: broker.port })
  })
  afterAll(async () => {
    reader.disconnect()
    await broker.stop()
  })

  const newStream = (): string => {
    streamCount += 1
    return `s${streamCount}`
  }

  /** iovalkey has the methods of ioredis that are used, and no other. */
  const likeIovalkey = (own: Redis): RedisClient => ({ call: async (...command) => own.call(...command) })

  describe.each<readonly [string, (port: number, stream: string) => Promise<Transport>]>([
    ['redis', async (port, stream) => redis({ client: await newNodeRedis(port), stream })],
    ['ioredis', async (port, stream) => redis({ client: newIoredis(port), stream })],
    [
      'a client like iovalkey',
      async (port, stream) => redis({ client: likeIovalkey(newIoredis(port)), stream }),
    ],
    ['URL', async (port, stream) => transportFromUrl(`redis://127.0.0.1:${port}?stream=${stream}`)],
  ])('the contract, by %s', (_, create) => {
    const cases = transportContract({
      create: async () => {
        const stream = newStream()
        const transport = await create(broker.port, stream)
        streams.set(transport, stream)
        return transport
      },
      receive: async (transport) => (await entriesOf(reader, streams.get(transport) ?? '')).map(messageOf),
      createUnreachable: async () => create(1, 's0'),
    })
    test.each(cases)('$name', async ({ run }) => expect(run()).resolves.toBeUndefined())
  })

  const event = contractEvent({
    type: 'order.placed',
    tenantId: 'äcme/one',
    orderingKey: 'заказ-9',
    payload: { text: 'ü 漢', n: 1 },
  })

  test('an entry has id, type, tenant and the CloudEvent, or the payload', async () => {
    const stream = newStream()
    for (const envelope of ['structured', 'raw'] as const) {
      const transport = redis({ client: reader, stream, envelope })
      expect(await transport.publish([event], { signal })).toEqual([{ status: 'delivered' }])
    }
    const [structured, raw] = await entriesOf(reader, stream)
    const fields = { id: event.id, type: 'order.placed', tenant: 'äcme/one' }
    expect({ ...structured, event: JSON.parse(structured?.['event'] ?? '') as unknown }).toEqual({
      ...fields,
      event: JSON.parse(JSON.stringify(toCloudEvent(event))) as unknown,
    })
    expect(raw).toEqual({ ...fields, payload: JSON.stringify(event.payload) })
  })

  test('a stream keeps about as many entries as it is told', async () => {
    const stream = newStream()
    const transport = redis({ client: reader, stream, maxLength: 200 })
    await transport.publish(
      manyEvents(500, () => ({})),
      { signal },
    )
    const length = await reader.xlen(stream)
    expect(length).toBeGreaterThanOrEqual(200)
    expect(length).toBeLessThan(500)
  })

  test('too few replicas are a retry', async () => {
    const transport = redis({ client: reader, stream: newStream(), replicas: 1, timeoutSeconds: 1 })
    await expect(transport.publish([event], { signal })).rejects.toThrow('0 of 1 replicas')
  })

  test('what the server refuses is retried, and its key waits', async () => {
    const stream = newStream()
    await reader.set(stream, 'no stream')
    const transport = redis({ client: reader, stream })
    const events = manyEvents(3, (n) => ({ orderingKey: n < 2 ? 'a' : 'b' }))
    expect(await transport.publish(events, { signal })).toMatchObject([
      { status: 'retry', error: { message: expect.stringContaining('WRONGTYPE') as string } },
      { status: 'retry', error: { message: expect.stringContaining('an earlier event') as string } },
      { status: 'retry' },
    ])
  })

  test('a bus forwards to it by URL, through a kill of the server', async () => {
    const own = await startRedis()
    onTestFinished(async () => own.stop())
    await forwardThroughKill(own, `redis://127.0.0.1:${own.port}`, 300)
    const entries = await entriesOf(newIoredis(own.port), 'events')
    expect(countInOrder(entries.map(messageOf), 300)).toBe(300)
  })

  test('a password that is wrong is tried again', async () => {
    const own = await startRedis(['--requirepass', 'other'])
    onTestFinished(async () => own.stop())
    const transport = transportFromUrl(`redis://:secret@127.0.0.1:${own.port}`)
    onTestFinished(async () => transport.close())
    await expect(transport.publish([event], { signal })).rejects.toThrow('WRONGPASS')
    const admin = new Redis({ port: own.port, password: 'other' })
    onTestFinished(() => admin.disconnect())
    await admin.config('SET', 'requirepass', 'secret')
    expect(await transport.publish([event], { signal })).toEqual([{ status: 'delivered' }])
  })

  test('the port of nobody is a failed attempt at once', async () => {
    const transport = transportFromUrl(`redis://127.0.0.1:${await freePort()}`)
    await expect(transport.publish([event], { signal })).rejects.toThrow(/ECONNREFUSED|reconnect/i)
    await transport.close()
  })
})
