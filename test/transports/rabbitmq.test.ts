import { randomUUID } from 'node:crypto'
import { connect, type ChannelModel, type ConsumeMessage } from 'amqplib'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { fromCloudEvent, fromCloudEventHeaders, toCloudEvent } from '../../src/index.ts'
import { transportContract, type ContractMessage } from '../../src/testing/index.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { rabbitmq, type RabbitmqOptions } from '../../src/transports/adapters/rabbitmq.ts'
import { transportFromUrl, type Transport } from '../../src/transports/index.ts'
import { freePort } from '../support/broker.ts'
import { countInOrder, forwardThroughKill, present } from '../support/forwarding.ts'
import { until } from '../support/database.ts'
import { rabbitmqUrl, startCuttable } from '../support/cuttable.ts'

const { signal } = new AbortController()

const connection = { createConfirmChannel: async () => expect.fail('nothing is to be sent') }
const good = { connection, exchange: 'events' }

describe('options', () => {
  test.each<readonly [string, unknown, string]>([
    ['none', undefined, 'options like { connection, exchange }'],
    ['no connection', { exchange: '' }, '`connection`'],
    [
      'a channel in place of a connection',
      { connection: { publish: () => {} }, exchange: '' },
      '`connection`',
    ],
    ['no exchange', { connection }, '`exchange`'],
    ['a long exchange', { connection, exchange: 'x'.repeat(128) }, '`exchange`'],
    ['an unknown key', { ...good, routingkey: 'a' }, '`routingKey`'],
    ['a long routing key', { ...good, routingKey: 'ü'.repeat(128) }, '`routingKey`'],
    ['a flag that is none', { ...good, mandatory: 'yes' }, '`mandatory`'],
    ['no size', { ...good, maxBytes: 0 }, '`maxBytes`'],
    ['no time', { ...good, timeoutSeconds: 0 }, '`timeoutSeconds`'],
    ['an unknown envelope', { ...good, envelope: 'avro' }, '`envelope`'],
  ])('%s is refused', (_, options, message) => {
    expect(() => rabbitmq(options as RabbitmqOptions)).toThrow(message)
  })
})

describe('URLs', () => {
  test.each([
    'amqp://localhost?exchange=events',
    'amqp://user:password@localhost:5672/vhost?exchange=events&routingKey=orders&mandatory=false&envelope=binary',
    'amqps://localhost/%2F?exchange=events',
  ])('%s is one', (url) => {
    expect(transportFromUrl(url)).toMatchObject({ name: 'rabbitmq', order: 'key' })
  })

  test.each([
    ['amqp:///vhost?exchange=events', 'the host is missing'],
    ['amqp://u:secret@host', 'the parameter `exchange` is missing'],
    ['amqp://u:secret@host?exchange=a&routingkey=b', 'Did you mean `routingKey`?'],
    ['amqp://u:secret@host?exchange=a&mandatory=1', '`mandatory` is true or false'],
    ['amqp://u:secret@host?exchange=a&envelope=avro', '`envelope` is structured or binary or raw'],
  ])('%s is refused', (url, message) => {
    expect(() => transportFromUrl(url)).toThrow(message)
    expect(() => transportFromUrl(url)).not.toThrow('secret')
  })
})

describe.skipIf(rabbitmqUrl === undefined)('with a broker', () => {
  const url = rabbitmqUrl ?? ''
  let model: ChannelModel
  const queues = new Map<Transport, string>()

  beforeAll(async () => {
    model = await connect(url)
    model.on('error', () => {})
  })
  afterAll(async () => model.close())

  /** A queue of its own, and an exchange that sends everything to it. */
  async function newQueue(): Promise<string> {
    const name = `bossbus-test-${randomUUID()}`
    const channel = await model.createChannel()
    await channel.assertQueue(name, { durable: true })
    await channel.assertExchange(name, 'topic', { durable: true })
    await channel.bindQueue(name, name, '#')
    await channel.close()
    onTestFinished(async () => {
      const cleaning = await model.createChannel()
      await cleaning.deleteExchange(name)
      await cleaning.deleteQueue(name)
      await cleaning.close()
    })
    return name
  }

  /** What a queue has, in its order. */
  async function messagesOf(queue: string): Promise<ConsumeMessage[]> {
    const channel = await model.createChannel()
    const { messageCount } = await channel.checkQueue(queue)
    const messages: ConsumeMessage[] = []
    await channel.consume(queue, (message) => message !== null && void messages.push(message))
    await until('all are there', () => messages.length >= messageCount)
    await channel.close()
    return messages
  }

  const contractMessage = ({ content }: ConsumeMessage): ContractMessage => {
    const { id, data } = JSON.parse(content.toString()) as { id: string; data: unknown }
    return { id, payload: data }
  }

  async function newConnection(to = url): Promise<ChannelModel> {
    const own = await connect(to)
    own.on('error', () => {})
    onTestFinished(async () => own.close().catch(() => {}))
    return own
  }

  describe.each<readonly [string, (exchange: string) => Promise<Transport>]>([
    ['connection', async (exchange) => rabbitmq({ connection: await newConnection(), exchange })],
    ['URL', async (exchange) => transportFromUrl(`${url}?exchange=${exchange}`)],
  ])('the contract, by %s', (name, create) => {
    const cases = transportContract({
      create: async () => {
        const queue = await newQueue()
        const transport = await create(queue)
        queues.set(transport, queue)
        return transport
      },
      receive: async (transport) => (await messagesOf(queues.get(transport) ?? '')).map(contractMessage),
      tooLargeBytes: 16_777_217,
      createUnreachable:
        name === 'URL'
          ? async () => transportFromUrl(`amqp://127.0.0.1:${await freePort()}?exchange=events`)
          : undefined,
    })
    test.each(cases)('$name', async ({ run }) => expect(run()).resolves.toBeUndefined())
  })

  const event = contractEvent({
    type: 'order.placed',
    tenantId: 'äcme/one',
    orderingKey: 'заказ-9',
    subject: 'orders/9 "x"',
    correlationId: '漢'.repeat(200),
    payload: { text: 'ü 漢', n: 1 },
    metadata: { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
  })

  async function sentAndRead(options: Partial<RabbitmqOptions>): Promise<ConsumeMessage> {
    const exchange = await newQueue()
    const transport = rabbitmq({ connection: model, exchange, ...options })
    onTestFinished(async () => transport.close())
    expect(await transport.publish([event], { signal })).toEqual([{ status: 'delivered' }])
    const [message] = await messagesOf(exchange)
    return present(message, 'there is no message')
  }

  test('structured is the CloudEvent, and the properties of the message are those of the event', async () => {
    const { content, properties, fields } = await sentAndRead({})
    expect(JSON.parse(content.toString())).toEqual(JSON.parse(JSON.stringify(toCloudEvent(event))))
    expect(fields.routingKey).toBe('order.placed')
    expect(properties).toMatchObject({
      contentType: 'application/cloudevents+json',
      messageId: event.id,
      type: 'order.placed',
      deliveryMode: 2,
      timestamp: Math.floor(event.createdAt.getTime() / 1000),
      // Longer than a property can be.
      correlationId: undefined,
    })
  })

  test('binary has the attributes as the binding for AMQP names them', async () => {
    const { content, properties } = await sentAndRead({ envelope: 'binary' })
    const headers = properties.headers ?? {}
    expect(headers).toMatchObject({
      cloudEvents_specversion: '1.0',
      cloudEvents_id: event.id,
      cloudEvents_subject: 'orders/9 "x"',
      cloudEvents_partitionkey: 'заказ-9',
    })
    const contentType = String(properties.contentType)
    const read = fromCloudEventHeaders({ ...headers, 'content-type': contentType }, content, 'amqp')
    const { event: got } = fromCloudEvent(read)
    expect(got).toMatchObject({ type: 'order.placed', payload: event.payload, orderingKey: 'заказ-9' })
  })

  test('raw is the payload, with id and type', async () => {
    const { content, properties } = await sentAndRead({ envelope: 'raw' })
    expect(JSON.parse(content.toString())).toEqual(event.payload)
    expect(properties.headers).toEqual({ id: event.id, type: 'order.placed' })
  })

  test('an event that no queue takes is retried, and dropped if it is not mandatory', async () => {
    const exchange = await newQueue()
    const channel = await model.createChannel()
    await channel.unbindQueue(exchange, exchange, '#')
    await channel.bindQueue(exchange, exchange, 'taken')
    await channel.close()
    const own = await newConnection()
    const routingKey = ({ subject }: { subject: string | undefined }): string => subject ?? 'none'
    const events = [
      contractEvent({ subject: 'taken' }),
      contractEvent({ subject: 'nobody', orderingKey: 'k' }),
      contractEvent({ subject: 'taken', orderingKey: 'k' }),
    ]
    const strict = rabbitmq({ connection: own, exchange, routingKey })
    expect(await strict.publish(events, { signal })).toMatchObject([
      { status: 'delivered' },
      { status: 'retry', error: { message: expect.stringContaining('NO_ROUTE') as string } },
      { status: 'retry' },
    ])
    const loose = rabbitmq({ connection: own, exchange, routingKey, mandatory: false })
    expect(await loose.publish(events.slice(1, 2), { signal })).toEqual([{ status: 'delivered' }])
    expect((await messagesOf(exchange)).length).toBe(1)
  })

  test.each([
    ['of the default frame', '', 59_000, 61_000],
    ['of a small frame', '?frameMax=8192', 6000, 8000],
  ])('headers that do not fit into a frame are rejected: %s', async (_, query, small, large) => {
    const exchange = await newQueue()
    const transport = rabbitmq({
      connection: await newConnection(`${url}${query}`),
      exchange,
      envelope: 'binary',
    })
    const events = [large, small].map((bytes) => contractEvent({ metadata: { long: 'x'.repeat(bytes) } }))
    const results = await transport.publish(events, { signal })
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'delivered'])
  })

  test('an exchange that is missing is retried, and found when it is there', async () => {
    const exchange = `bossbus-test-${randomUUID()}`
    const own = await newConnection()
    const transport = rabbitmq({ connection: own, exchange, mandatory: false })
    expect(await transport.publish([event], { signal })).toMatchObject([{ status: 'retry' }])
    await expect(transport.check({ signal })).rejects.toThrow('NOT_FOUND')
    const channel = await model.createChannel()
    await channel.assertExchange(exchange, 'fanout')
    await until('the event is delivered', async () => {
      const [result] = await transport.publish([event], { signal }).catch(() => [])
      return result?.status === 'delivered'
    })
    await transport.check({ signal })
    await channel.deleteExchange(exchange)
    await channel.close()
    await transport.close()
    // The connection is not the transport's.
    await (await own.createChannel()).close()
  })

  test('`close` does not wait for a broker that is down', async () => {
    const { promise } = Promise.withResolvers<never>()
    const transport = rabbitmq({ connection: { createConfirmChannel: async () => promise }, exchange: 'a' })
    const call = transport.publish([event], { signal: AbortSignal.timeout(200) })
    await expect(call).rejects.toThrow('timeout')
    await transport.close()
  })

  test('a bus forwards to it by URL, while its connections are cut and the broker is away', async () => {
    const queue = await newQueue()
    const cuttable = await startCuttable(5672)
    onTestFinished(async () => cuttable.kill())
    const through = `amqp://guest:guest@127.0.0.1:${cuttable.port}?exchange=${queue}`
    await forwardThroughKill(cuttable, through, 300)
    expect(countInOrder((await messagesOf(queue)).map(contractMessage), 300)).toBe(300)
  })

  test('the events of a key in one large call arrive in order', async () => {
    const exchange = await newQueue()
    const transport = rabbitmq({ connection: model, exchange })
    onTestFinished(async () => transport.close())
    const events = manyEvents(400, (n) => ({ orderingKey: `k${n % 3}` }))
    await transport.publish(events, { signal })
    const got = (await messagesOf(exchange)).map(contractMessage)
    for (const key of [0, 1, 2]) {
      const sent = events.filter((_, n) => n % 3 === key).map(({ id }) => id)
      expect(got.map(({ id }) => id).filter((id) => sent.includes(id))).toEqual(sent)
    }
  })
})
