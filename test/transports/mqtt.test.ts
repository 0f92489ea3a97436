import { MQTT, type CloudEvent } from 'cloudevents'
import { connectAsync, type IClientOptions, type IPublishPacket, type MqttClient } from 'mqtt'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { toCloudEvent } from '../../src/index.ts'
import { transportContract, type ContractMessage } from '../../src/testing/index.ts'
import { contractEvent } from '../../src/testing/transport-contract-events.ts'
import { mqtt, type MqttOptions } from '../../src/transports/adapters/mqtt.ts'
import { transportFromUrl, type Transport } from '../../src/transports/index.ts'
import { brokerPrograms, freePort, startBroker, type Broker } from '../support/broker.ts'
import { until } from '../support/database.ts'
import { startCuttable } from '../support/cuttable.ts'
import { countInOrder, forwardThroughKill, present } from '../support/forwarding.ts'

const { signal } = new AbortController()

const fakeClient = (
  options: object = { protocolVersion: 5 },
  answer: () => unknown = () => ({}),
): MqttClient => ({ publishAsync: async () => answer(), connected: true, options }) as unknown as MqttClient

const client = fakeClient()

describe('options', () => {
  test.each<readonly [string, unknown, string]>([
    ['none', undefined, 'options like { client }'],
    ['no client', {}, '`client`'],
    ['a client of something else', { client: { publish: () => {} } }, '`client`'],
    ['an unknown key', { client, topics: 'a' }, '`topic`'],
    ['a topic with a wildcard', { client, topic: 'a/#' }, '`topic`'],
    ['no acknowledgement', { client, qos: 0 }, '`qos`'],
    ['no size', { client, maxBytes: 0 }, '`maxBytes`'],
    ['no time', { client, timeoutSeconds: 0 }, '`timeoutSeconds`'],
    ['an unknown envelope', { client, envelope: 'avro' }, '`envelope`'],
    [
      'headers with MQTT 3',
      { client: fakeClient({ protocolVersion: 4 }), envelope: 'raw' },
      '`protocolVersion: 5`',
    ],
  ])('%s is refused', (_, options, message) => {
    expect(() => mqtt(options as MqttOptions)).toThrow(message)
  })
})

describe('URLs', () => {
  test.each([
    'mqtt://localhost',
    'mqtt://user:password@localhost:1883/events/orders?qos=2&envelope=binary',
    'mqtts://localhost:8883/events',
  ])('%s is one', (url) => {
    expect(transportFromUrl(url)).toMatchObject({ name: 'mqtt', order: 'key' })
  })

  test.each([
    ['mqtt:///events', 'the host is missing'],
    ['mqtt://u:secret@host/a/+', 'the topic is expected'],
    ['mqtt://u:secret@host?qso=1', 'Did you mean `qos`?'],
    ['mqtt://u:secret@host?qos=0', '`qos` is 1 or 2'],
  ])('%s is refused', (url, message) => {
    expect(() => transportFromUrl(url)).toThrow(message)
    expect(() => transportFromUrl(url)).not.toThrow('secret')
  })
})

test.each([
  [0x95, 'rejected'],
  [0x99, 'rejected'],
  [0x97, 'throttled'],
  [0x80, 'retry'],
  [0x87, 'retry'],
])('the reason code %i is %s', async (code, status) => {
  const refusing = fakeClient(undefined, () => {
    throw Object.assign(new Error('refused'), { code })
  })
  expect(await mqtt({ client: refusing }).publish([contractEvent({})], { signal })).toMatchObject([
    { status },
  ])
})

test('calls at the same time have at most ten messages under way together', async () => {
  let underWay = 0
  let most = 0
  const slow = fakeClient(undefined, async () => {
    underWay += 1
    most = Math.max(most, underWay)
    await new Promise((resolve) => setTimeout(resolve, 2))
    underWay -= 1
  })
  const transport = mqtt({ client: slow })
  const call = async () =>
    transport.publish(
      Array.from({ length: 40 }, () => contractEvent({})),
      { signal },
    )
  const results = (await Promise.all([call(), call(), call()])).flat()
  expect(results.every(({ status }) => status === 'delivered')).toBe(true)
  expect(results.length).toBe(120)
  expect(most).toBe(10)
})

const startMosquitto = async (): Promise<Broker> =>
  startBroker({
    program: brokerPrograms.mosquitto,
    async args(port, folder) {
      const file = join(folder, 'mosquitto.conf')
      await writeFile(
        file,
        // As root it would give up its rights, and the folder with them.
        `listener ${port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location ${folder}/
max_queued_messages 0\nmessage_size_limit 300000\nautosave_on_changes true\nautosave_interval 1\n`,
      )
      return ['-c', file]
    },
  })

interface Received {
  readonly topic: string
  readonly payload: Buffer
  readonly packet: IPublishPacket
}

const contractMessage = ({ payload }: Received): ContractMessage => {
  const { id, data } = JSON.parse(payload.toString()) as { id: string; data: unknown }
  return { id, payload: data }
}

async function newClient(port: number, options: IClientOptions = {}): Promise<MqttClient> {
  const own = await connectAsync(`mqtt://127.0.0.1:${port}`, {
    protocolVersion: 5,
    reconnectPeriod: 100,
    ...options,
  })
  own.on('error', () => {})
  onTestFinished(async () => own.endAsync(true))
  return own
}

/** Subscribes, and keeps what comes. */
async function listen(port: number, topic: string): Promise<readonly Received[]> {
  const received: Received[] = []
  const own = await newClient(port, {
    clientId: `reader-${Math.random()}`,
    clean: false,
    properties: { sessionExpiryInterval: 3600 },
  })
  own.on('message', (name, payload, packet) => void received.push({ topic: name, payload, packet }))
  await own.subscribeAsync(topic, { qos: 1 })
  return received
}

describe.skipIf(brokerPrograms.mosquitto === undefined)('with a broker', () => {
  let broker: Broker
  let topicCount = 0
  const readers = new Map<Transport, readonly Received[]>()

  beforeAll(async () => {
    broker = await startMosquitto()
  })
  afterAll(async () => broker.stop())

  const newTopic = (): string => {
    topicCount += 1
    return `test/${topicCount}`
  }

  describe.each<readonly [string, (port: number, topic: string) => Promise<Transport>]>([
    ['client', async (port, topic) => mqtt({ client: await newClient(port), topic })],
    [
      'client of MQTT 3',
      async (port, topic) => mqtt({ client: await newClient(port, { protocolVersion: 4 }), topic }),
    ],
    ['client, with QoS 2', async (port, topic) => mqtt({ client: await newClient(port), topic, qos: 2 })],
    ['URL', async (port, topic) => transportFromUrl(`mqtt://127.0.0.1:${port}/${topic}`)],
  ])('the contract, by %s', (name, create) => {
    const cases = transportContract({
      create: async () => {
        const topic = newTopic()
        const reader = await listen(broker.port, topic)
        const transport = await create(broker.port, topic)
        readers.set(transport, reader)
        return transport
      },
      async receive(transport, count) {
        const reader = readers.get(transport) ?? []
        await until(
          'all are there',
          () => new Set(reader.map((each) => contractMessage(each).id)).size >= count,
        )
        return reader.map(contractMessage)
      },
      tooLargeBytes: 262_145,
      createUnreachable: name === 'URL' ? async () => create(await freePort(), 'test') : undefined,
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

  async function sentAndReceived(options: Partial<MqttOptions>): Promise<Received> {
    const topic = newTopic()
    const reader = await listen(broker.port, topic)
    const transport = mqtt({ client: await newClient(broker.port), topic, ...options })
    expect(await transport.publish([event], { signal })).toEqual([{ status: 'delivered' }])
    await until('it has come', () => reader.length > 0)
    return present(reader[0], 'nothing has come')
  }

  test.each(['structured', 'binary'] as const)('%s is read by the official SDK', async (envelope) => {
    const { payload, packet } = await sentAndReceived({ envelope })
    const { contentType, userProperties } = packet.properties ?? {}
    const body = payload.toString()
    const read = MQTT.toEvent({
      PUBLISH: { 'Content Type': contentType },
      'User Properties': { ...userProperties },
      headers: { ...userProperties, datacontenttype: contentType },
      body: envelope === 'binary' ? (JSON.parse(body) as unknown) : body,
    } as never) as CloudEvent
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
    expect(contentType).toBe(envelope === 'binary' ? 'application/json' : 'application/cloudevents+json')
  })

  test('raw is the payload, with id and type', async () => {
    const { payload, packet } = await sentAndReceived({ envelope: 'raw' })
    expect(JSON.parse(payload.toString())).toEqual(event.payload)
    expect({ ...packet.properties?.userProperties }).toEqual({ id: event.id, type: 'order.placed' })
  })

  test('the topic is the type with slashes', async () => {
    const reader = await listen(broker.port, 'order/#')
    const transport = mqtt({ client: await newClient(broker.port) })
    await transport.publish([event], { signal })
    await until('it has come', () => reader.length > 0)
    expect(reader[0]?.topic).toBe('order/placed')
  })

  test('what the broker finds too large is not delivered, and its key waits', async () => {
    const transport = mqtt({
      client: await newClient(broker.port),
      topic: newTopic(),
      maxBytes: 1_000_000,
      timeoutSeconds: 2,
    })
    const events = [
      contractEvent({ payload: 'x'.repeat(400_000), orderingKey: 'k' }),
      contractEvent({ orderingKey: 'k' }),
    ]
    const results = await transport.publish(events, { signal })
    expect(results[0]?.status).not.toBe('delivered')
    expect(results[1]?.status).toBe('retry')
  })

  test('a bus forwards to it by URL, while its connection is cut and the broker is away', async () => {
    const reader = await listen(broker.port, 'note')
    const cuttable = await startCuttable(broker.port)
    onTestFinished(async () => cuttable.kill())
    await forwardThroughKill(cuttable, `mqtt://127.0.0.1:${cuttable.port}`, 300)
    await until('all have come', () => new Set(reader.map(({ payload }) => payload.toString())).size >= 300)
    expect(countInOrder(reader.map(contractMessage), 300)).toBe(300)
  })

  test('it goes on after the broker was killed', async () => {
    const own = await startMosquitto()
    onTestFinished(async () => own.stop())
    const reader = await listen(own.port, 'note')
    await forwardThroughKill(own, `mqtt://127.0.0.1:${own.port}`, 60)
    // Mosquitto keeps in memory what it has acknowledged: a kill may lose the last of the first half.
    await until('the second half has come', () => {
      const got = new Set(reader.map((each) => Number(contractMessage(each).payload)))
      return Array.from({ length: 30 }, (_, n) => 30 + n).every((n) => got.has(n))
    })
    expect(reader.length).toBeGreaterThanOrEqual(30)
  })
})
