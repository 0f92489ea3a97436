import { jetstream, jetstreamManager, type JetStreamClient } from '@nats-io/jetstream'
import { connect, type MsgHdrs, type NatsConnection } from '@nats-io/transport-node'
import { HTTP, type CloudEvent } from 'cloudevents'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { toCloudEvent } from '../../src/index.ts'
import { transportContract, type ContractMessage } from '../../src/testing/index.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { nats, type NatsOptions } from '../../src/transports/adapters/nats.ts'
import { transportFromUrl, type Transport } from '../../src/transports/index.ts'
import { brokerPrograms, freePort, startBroker, type Broker } from '../support/broker.ts'
import { countInOrder, forwardThroughKill, present } from '../support/forwarding.ts'
import { until } from '../support/database.ts'

const { signal } = new AbortController()

const fakeClient = { publish: async () => ({}) } as unknown as JetStreamClient

describe('options', () => {
  test.each<readonly [string, unknown, string]>([
    ['none', undefined, 'options like { jetstream }'],
    ['no client', {}, '`jetstream`'],
    ['a connection in place of the client', { jetstream: { request: () => {} } }, '`jetstream`'],
    ['an unknown key', { jetstream: fakeClient, subjects: 'a' }, '`subject`'],
    ['a subject with a wildcard', { jetstream: fakeClient, subject: 'a.*' }, '`subject`'],
    ['an empty token', { jetstream: fakeClient, subject: 'a..b' }, '`subject`'],
    ['a subject that is no text', { jetstream: fakeClient, subject: 1 }, '`subject`'],
    ['no size', { jetstream: fakeClient, maxBytes: 0 }, '`maxBytes`'],
    ['no time', { jetstream: fakeClient, timeoutSeconds: 0 }, '`timeoutSeconds`'],
    ['an unknown envelope', { jetstream: fakeClient, envelope: 'avro' }, '`envelope`'],
  ])('%s is refused', (_, options, message) => {
    expect(() => nats(options as NatsOptions)).toThrow(message)
  })
})

describe('URLs', () => {
  test.each([
    'nats://localhost',
    'nats://localhost:4222/events',
    'nats://user:password@one:4222,two:4222/orders.placed?envelope=binary',
    'nats://token@host/s?maxBytes=1000&tls=true',
  ])('%s is one', (url) => {
    expect(transportFromUrl(url)).toMatchObject({ name: 'nats', order: 'key' })
  })

  test.each([
    ['nats:///events', 'the host is missing'],
    ['nats://secret@host/a.*', 'the subject is expected'],
    ['nats://secret@host/a?envelop=raw', 'Did you mean `envelope`?'],
    ['nats://secret@host/a?tls=yes', '`tls` is true or false'],
  ])('%s is refused', (url, message) => {
    expect(() => transportFromUrl(url)).toThrow(message)
    expect(() => transportFromUrl(url)).not.toThrow('secret')
  })
})

const startNats = async (more: readonly string[] = [], port?: number): Promise<Broker> =>
  startBroker({
    program: brokerPrograms.nats,
    port,
    args: (ownPort, folder) => ['-a', '127.0.0.1', '-p', String(ownPort), '-js', '-sd', folder, ...more],
  })

interface Stored {
  readonly subject: string
  readonly data: Uint8Array
  readonly headers: MsgHdrs
}

/** What a stream has, in its order. */
async function storedIn(connection: NatsConnection, stream: string): Promise<Stored[]> {
  const { streams } = await jetstreamManager(connection)
  const { state } = await streams.info(stream)
  const stored: Stored[] = []
  if (state.messages === 0) return stored
  for (let seq = state.first_seq; seq <= state.last_seq; seq += 1) {
    const message = await streams.getMessage(stream, { seq })
    if (message !== null)
      stored.push({ subject: message.subject, data: message.data, headers: message.header })
  }
  return stored
}

const jsonOf = ({ data }: Stored): { id: string; data: unknown } =>
  JSON.parse(Buffer.from(data).toString()) as { id: string; data: unknown }

const idOf = ({ headers }: Stored): string => headers.get('Nats-Msg-Id')

describe.skipIf(brokerPrograms.nats === undefined)('with a server', () => {
  let broker: Broker
  let connection: NatsConnection
  let streamCount = 0
  const streams = new Map<Transport, string>()

  beforeAll(async () => {
    broker = await startNats()
    connection = await connect({ port: broker.port })
  })
  afterAll(async () => {
    await connection.close()
    await broker.stop()
  })

  /** A stream of its own; its subjects begin with its name. */
  async function newStream(config: { readonly max_msg_size?: number } = {}): Promise<string> {
    streamCount += 1
    const name = `s${streamCount}`
    await (await jetstreamManager(connection)).streams.add({ name, subjects: [`${name}.>`], ...config })
    return name
  }

  async function newTransport(options: Partial<NatsOptions> = {}): Promise<Transport> {
    const stream = await newStream()
    const transport = nats({ jetstream: jetstream(connection), subject: `${stream}.events`, ...options })
    streams.set(transport, stream)
    return transport
  }

  const storedBy = async (transport: Transport): Promise<Stored[]> =>
    storedIn(connection, streams.get(transport) ?? '')

  describe.each<readonly [string, (port: number, stream: string) => Promise<Transport>]>([
    [
      'client',
      async (port, stream) => {
        const own = await connect({ port, timeout: 1000 })
        onTestFinished(async () => own.close())
        return nats({ jetstream: jetstream(own), subject: `${stream}.events` })
      },
    ],
    ['URL', async (port, stream) => transportFromUrl(`nats://127.0.0.1:${port}/${stream}.events`)],
  ])('the contract, by %s', (name, create) => {
    const cases = transportContract({
      create: async () => {
        const stream = await newStream()
        const transport = await create(broker.port, stream)
        streams.set(transport, stream)
        return transport
      },
      receive: async (transport) =>
        (await storedBy(transport))
          .map(jsonOf)
          .map(({ id, data }): ContractMessage => ({ id, payload: data })),
      tooLargeBytes: 1_048_577,
      createUnreachable: name === 'URL' ? async () => create(await freePort(), 's0') : undefined,
    })
    test.each(cases)('$name', async ({ run }) => expect(run()).resolves.toBeUndefined())
  })

  const event = contractEvent({
    type: 'order.placed',
    tenantId: 'äcme/one',
    orderingKey: 'заказ-9',
    subject: 'orders/9 "x"',
    correlationId: 'c1',
    payload: { text: 'ü 漢', n: 1 },
    metadata: { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
  })

  async function sentAndStored(options: Partial<NatsOptions>): Promise<Stored> {
    const transport = await newTransport(options)
    expect(await transport.publish([event], { signal })).toEqual([{ status: 'delivered' }])
    const [stored] = await storedBy(transport)
    return present(stored, 'nothing is stored')
  }

  test.each(['structured', 'binary'] as const)('%s is read by the official SDK', async (envelope) => {
    const { headers, data } = await sentAndStored({ envelope })
    // The binding for NATS names and encodes headers as that of HTTP does.
    const names = headers.keys().filter((name) => !name.startsWith('Nats-'))
    const read = HTTP.toEvent({
      headers: Object.fromEntries(names.map((name) => [name, decodeURIComponent(headers.get(name))])),
      body: Buffer.from(data).toString(),
    }) as CloudEvent
    expect(read.validate()).toBe(true)
    expect(read).toMatchObject({
      id: event.id,
      type: 'order.placed',
      source: toCloudEvent(event).source,
      subject: 'orders/9 "x"',
      tenantid: 'äcme/one',
      partitionkey: 'заказ-9',
      correlationid: 'c1',
      traceparent: event.metadata['traceparent'],
      data: event.payload,
    })
    expect(headers.get('content-type')).toBe(
      envelope === 'binary' ? 'application/json' : 'application/cloudevents+json',
    )
  })

  test('raw is the payload, with id and type', async () => {
    const { headers, data } = await sentAndStored({ envelope: 'raw' })
    expect(JSON.parse(Buffer.from(data).toString())).toEqual(event.payload)
    expect(headers.keys().toSorted()).toEqual(['Nats-Msg-Id', 'content-type', 'id', 'type'])
    expect([headers.get('id'), headers.get('type')]).toEqual([event.id, 'order.placed'])
  })

  test('an event that is sent again is stored once', async () => {
    const transport = await newTransport()
    const events = manyEvents(20, () => ({}))
    await transport.publish(events, { signal })
    await transport.publish(events, { signal })
    expect((await storedBy(transport)).map(idOf).toSorted()).toEqual(events.map(({ id }) => id).toSorted())
  })

  test('each event has the subject that a function gives it; one that can have none is rejected, and its key waits', async () => {
    const stream = await newStream()
    const transport = nats({
      jetstream: jetstream(connection),
      subject: ({ subject, type }) => `${stream}.${subject ?? type}`,
    })
    const events = [
      contractEvent({ subject: 'one' }),
      contractEvent({ subject: 'no subject', orderingKey: 'k' }),
      contractEvent({ subject: 'two', orderingKey: 'k' }),
    ]
    const results = await transport.publish(events, { signal })
    expect(results.map(({ status }) => status)).toEqual(['delivered', 'rejected', 'retry'])
    expect((await storedIn(connection, stream)).map(({ subject }) => subject)).toEqual([`${stream}.one`])
  })

  test('what the server or the stream finds too large is rejected, and its key waits', async () => {
    const stream = await newStream({ max_msg_size: 5000 })
    const transport = nats({
      jetstream: jetstream(connection),
      subject: `${stream}.events`,
      maxBytes: 10_000_000,
    })
    const events = [6000, 1_100_000, 10_000_001].flatMap((bytes) => [
      contractEvent({ payload: 'x'.repeat(bytes), orderingKey: `k${bytes}` }),
      contractEvent({ orderingKey: `k${bytes}` }),
    ])
    const results = await transport.publish(events, { signal })
    expect(results.map(({ status }) => status)).toEqual([
      ...['rejected', 'retry', 'rejected', 'retry', 'rejected', 'retry'],
    ])
    expect(await storedIn(connection, stream)).toEqual([])
  })

  test('without a stream for the subject an event is retried', async () => {
    const transport = nats({ jetstream: jetstream(connection), subject: 'nobody.listens' })
    expect(await transport.publish([event], { signal })).toMatchObject([{ status: 'retry' }])
  })

  test('a bus forwards to it by URL, through a kill of the server', { tags: ['slow'] }, async () => {
    const own = await startNats()
    onTestFinished(async () => own.stop())
    const reader = await connect({ port: own.port, maxReconnectAttempts: -1, reconnectTimeWait: 100 })
    onTestFinished(async () => reader.close())
    await (await jetstreamManager(reader)).streams.add({ name: 'note', subjects: ['note'] })
    await forwardThroughKill(own, `nats://127.0.0.1:${own.port}`, 300)
    const stored = await storedIn(reader, 'note')
    expect(
      countInOrder(
        stored.map((each) => ({ id: idOf(each), payload: jsonOf(each).data })),
        300,
      ),
    ).toBe(300)
    expect(new Set(stored.map(idOf)).size).toBe(stored.length)
  })

  test('a login that is refused is tried again', async () => {
    const port = await freePort()
    const refusing = await startNats(['--user', 'u', '--pass', 'other'], port)
    const transport = transportFromUrl(`nats://u:p@127.0.0.1:${port}/note`)
    onTestFinished(async () => transport.close())
    await expect(transport.publish([event], { signal })).rejects.toThrow(/authorization/i)
    await refusing.stop()
    const accepting = await startNats(['--user', 'u', '--pass', 'p'], port)
    onTestFinished(async () => accepting.stop())
    const reader = await connect({ port, user: 'u', pass: 'p' })
    onTestFinished(async () => reader.close())
    await (await jetstreamManager(reader)).streams.add({ name: 'note', subjects: ['note'] })
    expect(await transport.publish([event], { signal })).toEqual([{ status: 'delivered' }])
    // Later too: the client gives a connection up whose login is refused twice.
    await accepting.kill()
    const refusingAgain = await startNats(['--user', 'u', '--pass', 'other'], port)
    await until('the client gives up', async () => {
      const call = { signal: AbortSignal.timeout(1000) }
      return transport.publish([event], call).then(
        (results) => /authorization/i.test(String((results[0] as { error?: unknown } | undefined)?.error)),
        (error: unknown) => /authorization/i.test(String(error)),
      )
    })
    await refusingAgain.stop()
    await accepting.start()
    await until('an event is delivered', async () => {
      const [result] = await transport.publish([event], { signal }).catch(() => [])
      return result?.status === 'delivered'
    })
  })

  test(
    'a cluster of three keeps every event once, and the order of keys, while the leader is killed',
    { tags: ['slow'] },
    async () => {
      const [a, b, c] = [await freePort(), await freePort(), await freePort()]
      const brokers: Broker[] = []
      onTestFinished(async () => void (await Promise.all(brokers.map(async (each) => each.stop()))))
      for (const [n, routePort] of [a, b, c].entries())
        brokers.push(
          await startNats([
            ...['--name', `n${n}`, '--cluster_name', 'test', '--cluster', `nats://127.0.0.1:${routePort}`],
            ...['--routes', [a, b, c].map((port) => `nats://127.0.0.1:${port}`).join(',')],
          ]),
        )
      const servers = brokers.map(({ port }) => `127.0.0.1:${port}`)
      const reader = await connect({ servers, maxReconnectAttempts: -1, reconnectTimeWait: 100 })
      onTestFinished(async () => reader.close())
      const manager = await created(async () => jetstreamManager(reader))
      await created(async () => manager.streams.add({ name: 'note', subjects: ['note'], num_replicas: 3 }))
      const { cluster } = await manager.streams.info('note')
      const leader = brokers[Number(cluster?.leader?.slice(1))]
      await forwardThroughKill(present(leader, 'there is no leader'), `nats://${servers.join(',')}/note`, 600)
      const stored = await created(async () => storedIn(reader, 'note'))
      expect(
        countInOrder(
          stored.map((each) => ({ id: idOf(each), payload: jsonOf(each).data })),
          600,
        ),
      ).toBe(600)
      expect(new Set(stored.map(idOf)).size).toBe(stored.length)
    },
  )
})

/** A cluster needs a while until it has a leader. */
async function created<T>(make: () => Promise<T>): Promise<T> {
  let made: { readonly value: T } | undefined
  await until('the cluster answers', async () => {
    made = await make().then(
      (value) => ({ value }),
      () => undefined,
    )
    return made !== undefined
  })
  return present(made, 'the cluster does not answer').value
}
