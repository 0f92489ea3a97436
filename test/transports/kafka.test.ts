import { randomUUID } from 'node:crypto'
import { compatibilityPartitioner, Producer } from '@platformatic/kafka'
import { Kafka as SdkKafka, type CloudEvent as SdkCloudEvent } from 'cloudevents'
import kafkajs from 'kafkajs'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { toCloudEvent, type StoredEvent } from '../../src/index.ts'
import { transportContract, type ContractMessage } from '../../src/testing/index.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { kafka, type KafkaOptions } from '../../src/transports/adapters/kafka.ts'
import { murmur2, partitionOf } from '../../src/transports/kafka/kafka-records.ts'
import { transportFromUrl, type Transport } from '../../src/transports/index.ts'
import { isFullForm } from '../support/form.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { apiKeys, librdkafkaPath, startKafkaCluster, type KafkaCluster } from '../support/kafka-cluster.ts'
import { createKafkaReader, type KafkaReader, type ReadRecord } from '../support/kafka-reader.ts'

const signal = new AbortController().signal

const cloudEventIn = (value: Buffer): { readonly id: string; readonly data: unknown } =>
  JSON.parse(value.toString()) as { id: string; data: unknown }

describe('the partition of a key', () => {
  test('is the hash of the Java client', () => {
    // UtilsTest.testMurmur2 of Apache Kafka.
    const known: readonly (readonly [string, number])[] = [
      ['21', -973_932_308],
      ['foobar', -790_332_482],
      ['a-little-bit-long-string', -985_981_536],
      ['a-little-bit-longer-string', -1_486_304_829],
      ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58_897_971],
      ['abc', 479_470_107],
    ]
    expect(known.map(([text]) => [text, murmur2(Buffer.from(text))])).toEqual(known)
  })

  test('is that of other clients', () => {
    const other = kafkajs.Partitioners.DefaultPartitioner()
    for (let n = 0; n < 500; n += 1) {
      const key = Buffer.from(`tenant-${n}/ключ ${'x'.repeat(n % 9)}`)
      const count = (n % 50) + 1
      const partitionMetadata = Array.from({ length: count }, (_, partitionId) => ({
        partitionId,
        leader: 1,
      })) as never
      const expected = compatibilityPartitioner({ topic: 't' }, key) % count
      expect(partitionOf(key, count)).toBe(expected)
      expect(other({ topic: 't', partitionMetadata, message: { key, value: null } })).toBe(expected)
    }
  })
})

/** A producer that answers as it is told. */
const anyProducer = {
  send: async () => ({}),
  metadata: async () => ({ brokers: new Map(), topics: new Map() }),
}

describe('options', () => {
  test.each<readonly [string, unknown, string]>([
    ['none', undefined, 'options like { producer, topic }'],
    ['no producer', { topic: 't' }, '`producer` to be a producer of @platformatic/kafka or of kafkajs'],
    ['another object', { topic: 't', producer: { send: () => {} } }, '`producer` to be a producer'],
    ['no topic', { producer: anyProducer }, '`topic` to be a text or a function'],
    ['a topic that cannot be', { producer: anyProducer, topic: 'a b' }, '`topic` to be 1 to 249 letters'],
    ['an unknown key', { producer: anyProducer, topic: 't', topics: [] }, 'Did you mean `topic`?'],
    ['an unknown envelope', { producer: anyProducer, topic: 't', envelope: 'avro' }, "'debezium', got"],
    [
      'a limit that is too small',
      { producer: anyProducer, topic: 't', maxMessageBytes: 10 },
      '`maxMessageBytes` to be an integer',
    ],
    [
      'a claim check without a place',
      { producer: anyProducer, envelope: 'debezium', claimCheck: { store: async () => 'a:b' } },
      "no `claimCheck` with the envelope 'debezium'",
    ],
  ])('%s is refused', (_, options, message) => {
    expect(() => kafka(options as KafkaOptions)).toThrow(
      expect.objectContaining({
        code: 'BUS_INVALID_OPTION',
        message: expect.stringContaining(message) as string,
      }),
    )
  })

  test('a topic that a function gives is checked for each event', async () => {
    const transport = kafka({ producer: anyProducer, topic: ({ type }) => type })
    const [result] = await transport.publish([contractEvent({ type: 'not a topic' })], { signal })
    expect(result).toMatchObject({
      status: 'retry',
      error: {
        message: 'Expected `topic` to be 1 to 249 letters, digits, `.`, `_` and `-`, got "not a topic"',
      },
    })
  })
})

describe('URLs', () => {
  test.each([
    'kafka://one/orders',
    'kafka://one:9092,two:9092/orders?envelope=binary&maxMessageBytes=2000000&clientId=me',
    'kafka://user:p%40ss@one,two/orders?sasl=scram-sha-512&tls=true',
    'kafka://user:pass@one/orders',
    'kafka://one?envelope=debezium',
    'kafka://one/?envelope=debezium',
  ])('%s is accepted, and connects later', async (url) => {
    const transport = transportFromUrl(url)
    expect([transport.name, transport.order, transport.maxEvents]).toEqual(['kafka', 'key', 1000])
    await transport.open?.()
    await transport.close()
  })

  test.each([
    ['kafka://one', 'the path, a topic, is missing'],
    ['kafka:///orders', 'the host is missing'],
    ['kafka://one/a/b', 'a topic has 1 to 249 letters'],
    ['kafka://one/orders?sasl=plain', '`sasl` needs a user and a password'],
    ['kafka://:secret@one/orders', 'the user is missing'],
    ['kafka://user:secret@one/orders?sasl=gssapi', '`sasl` is plain or scram-sha-256 or scram-sha-512'],
    ['kafka://user:secret@one/orders?tls=1', '`tls` is true or false'],
    ['kafka://user:secret@one/orders?envelope=avro', '`envelope` is structured or binary'],
    ['kafka://user:secret@one/orders?group=a', 'the parameter `group` is not known'],
    ['kafka://user:secret@one/orders?maxMessageBytes=1', '`maxMessageBytes` is a whole number'],
  ])('%s is refused', (url, message) => {
    let thrown: unknown
    try {
      transportFromUrl(url)
    } catch (error) {
      thrown = error
    }
    expect(thrown).toMatchObject({
      code: 'BUS_INVALID_TRANSPORT_URL',
      message: expect.stringContaining(message) as string,
    })
    expect(String(thrown)).not.toContain('secret')
  })
})

// Debian's package librdkafka1 brings the brokers.
describe.skipIf(librdkafkaPath === undefined)('with brokers', () => {
  const topics = Array.from({ length: 30 }, (_, n) => `t${n}`)
  const partitionCount = 4
  let cluster: KafkaCluster
  let reader: KafkaReader
  let used = 0

  beforeAll(async () => {
    cluster = await startKafkaCluster()
    reader = await createKafkaReader(cluster, ['contract', 'outbox.event.order', ...topics])
  })
  afterAll(async () => {
    await reader.close()
    await cluster.stop()
  })

  /** A topic that no other test uses. */
  function newTopic(): string {
    used += 1
    const topic = topics[used - 1]
    if (topic === undefined) throw new Error('more topics are needed')
    return topic
  }

  function newProducer(brokers = cluster.brokers): Producer {
    const producer = new Producer({
      clientId: 'test',
      bootstrapBrokers: brokers,
      retries: 1,
      retryDelay: 50,
    })
    onTestFinished(async () => producer.close())
    return producer
  }

  function newKafkaJsProducer(brokers = cluster.brokers): kafkajs.Producer {
    const client = new kafkajs.Kafka({
      clientId: 'test',
      brokers,
      logLevel: kafkajs.logLevel.NOTHING,
      retry: { retries: 1, initialRetryTime: 50 },
    })
    const producer = client.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner })
    onTestFinished(async () => producer.disconnect())
    return producer
  }

  describe.each<readonly [string, (brokers: string[]) => Promise<Transport>]>([
    ['@platformatic/kafka', async (brokers) => kafka({ producer: newProducer(brokers), topic: 'contract' })],
    ['kafkajs', async (brokers) => kafka({ producer: newKafkaJsProducer(brokers), topic: 'contract' })],
    ['URL', async (brokers) => transportFromUrl(`kafka://${brokers.join(',')}/contract`)],
  ])('the contract, by %s', (_, create) => {
    /** What transports have sent: all send to one topic. */
    const sent = new Map<Transport, Set<string>>()

    async function createNoting(): Promise<Transport> {
      const transport = await create(cluster.brokers)
      const ids = new Set<string>()
      const noting: Transport = {
        ...transport,
        async publish(events, call) {
          for (const { id } of events) ids.add(id)
          return transport.publish(events, call)
        },
      }
      sent.set(noting, ids)
      return noting
    }

    async function receive(transport: Transport, count: number): Promise<ContractMessage[]> {
      const ids = sent.get(transport)
      const isOfTransport = ({ value }: ReadRecord): boolean => ids?.has(cloudEventIn(value).id) === true
      const records = await reader.records('contract', count, isOfTransport)
      return records.map(({ value }) => {
        const { id, data } = cloudEventIn(value)
        return { id, payload: data }
      })
    }

    const cases = transportContract({
      create: createNoting,
      receive,
      tooLargeBytes: 1_048_588,
      createUnreachable: async () => create(['127.0.0.1:1']),
    })
    test.each(cases)('$name', async ({ run }) => {
      await expect(run()).resolves.toBeUndefined()
    })
  })

  /** Sends events, and gives the records in the order of the events. */
  async function sentAndRead(
    options: Omit<KafkaOptions, 'producer' | 'topic'>,
    events: readonly StoredEvent[],
  ): Promise<readonly ReadRecord[]> {
    const topic = newTopic()
    const transport = kafka({ producer: newProducer(), topic, ...options })
    const results = await transport.publish(events, { signal })
    expect(results.map(({ status }) => status)).toEqual(events.map(() => 'delivered'))
    return reader.records(topic, events.length)
  }

  const sdkEventOf = ({ headers, value, key }: ReadRecord): SdkCloudEvent =>
    SdkKafka.toEvent({
      headers,
      value: value.toString(),
      key: key?.toString(),
      body: undefined,
    } as never) as SdkCloudEvent

  describe('envelopes', () => {
    const event = contractEvent({
      type: 'order.placed',
      tenantId: 'äcme/one',
      orderingKey: 'заказ-9',
      subject: 'orders/9 "x"',
      correlationId: 'c1',
      payload: { text: 'ü 漢', n: 1 },
      metadata: { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
    })
    const cloudEvent = toCloudEvent(event)

    test.each(['structured', 'binary'] as const)('%s is read by the official SDK', async (envelope) => {
      const [record] = await sentAndRead({ envelope }, [event])
      if (record === undefined) throw new Error('no record')
      const read = sdkEventOf(record)
      expect(read.validate()).toBe(true)
      expect(read).toMatchObject({
        id: event.id,
        type: 'order.placed',
        source: cloudEvent.source,
        subject: 'orders/9 "x"',
        tenantid: 'äcme/one',
        // The SDK takes it from the key of the record.
        partitionkey: record.key?.toString(),
        correlationid: 'c1',
        traceparent: event.metadata['traceparent'],
        data: event.payload,
      })
      expect(record.headers['ce_partitionkey']).toBe(envelope === 'binary' ? 'заказ-9' : undefined)
      expect(record.headers['content-type']).toMatch(
        envelope === 'binary' ? /^application\/json$/ : /^application\/cloudevents\+json/,
      )
    })

    test('the key is the tenant, a slash and the ordering key, in UTF-8; of the tenant, % and / are encoded', async () => {
      const events = [
        event,
        contractEvent({ tenantId: '100%', orderingKey: 'a/b%' }),
        contractEvent({ orderingKey: undefined }),
      ]
      const records = await sentAndRead({ envelope: 'raw' }, events)
      const byId = new Map(records.map((record) => [record.headers['id'], record.key]))
      expect(events.map(({ id }) => byId.get(id)?.toString())).toEqual([
        'äcme%2Fone/заказ-9',
        '100%25/a/b%',
        undefined,
      ])
    })

    test('raw is the payload, with id and type', async () => {
      const [record] = await sentAndRead({ envelope: 'raw' }, [event])
      expect(JSON.parse(record?.value.toString() ?? '')).toEqual(event.payload)
      expect(record?.headers).toEqual({
        'content-type': 'application/json',
        id: event.id,
        type: 'order.placed',
      })
    })

    test('debezium is the payload in the topic of the aggregate, with its key and the id', async () => {
      const transport = kafka({ producer: newProducer(), envelope: 'debezium' })
      expect(await transport.publish([event], { signal })).toEqual([{ status: 'delivered' }])
      const [record] = await reader.records('outbox.event.order', 1)
      expect(JSON.parse(record?.value.toString() ?? '')).toEqual(event.payload)
      expect(record?.key?.toString()).toBe('заказ-9')
      expect(record?.headers).toEqual({ id: event.id, eventType: 'order.placed' })
    })

    test('a claim check replaces what is too large', async () => {
      const stored: string[] = []
      const store = async ({ id }: StoredEvent): Promise<string> => {
        stored.push(id)
        return `s3://payloads/${id}`
      }
      const large = contractEvent({ payload: 'x'.repeat(3000) })
      const records = await sentAndRead(
        { envelope: 'binary', maxMessageBytes: 2000, claimCheck: { store } },
        [large, contractEvent({})],
      )
      expect(stored).toEqual([large.id])
      const record = records.find(({ headers }) => headers['ce_id'] === large.id)
      expect(record?.headers['ce_dataref']).toBe(`s3://payloads/${large.id}`)
      expect(record?.value.toString()).toBe('null')
    })
  })

  test('a key is in the partition that the Java client gives it', async () => {
    const events = manyEvents(60, (n) => ({ orderingKey: `key-${n}` }))
    const topic = newTopic()
    const other = newTopic()
    await kafka({ producer: newProducer(), topic, envelope: 'raw' }).publish(events, { signal })
    const byKafkaJs = kafka({ producer: newKafkaJsProducer(), topic: other, envelope: 'raw' })
    await byKafkaJs.publish(events, { signal })
    for (const name of [topic, other]) {
      const records = await reader.records(name, 60)
      expect(records).toHaveLength(60)
      for (const { key, partition } of records)
        expect(partition).toBe(partitionOf(key ?? Buffer.alloc(0), partitionCount))
    }
  })

  test('events without a key are spread', async () => {
    const records = await sentAndRead(
      {},
      manyEvents(60, () => ({})),
    )
    expect(new Set(records.map(({ partition }) => partition)).size).toBe(partitionCount)
  })

  test('each event goes to the topic that a function gives, and those of a topic that is missing are retried', async () => {
    const [one, two] = [newTopic(), newTopic()]
    const transport = kafka({
      producer: newProducer(),
      topic: ({ subject }) => subject ?? 'unknown',
      envelope: 'raw',
    })
    const topics = [one, two, 'a..b', one, 'not a topic']
    const results = await transport.publish(
      topics.map((subject) => contractEvent({ subject })),
      { signal },
    )
    expect(results.map(({ status }) => status).filter((_, n) => n !== 2)).toEqual([
      'delivered',
      'delivered',
      'delivered',
      'retry',
    ])
    expect(await reader.records(one, 2)).toHaveLength(2)
    expect(await reader.records(two, 1)).toHaveLength(1)
  })

  test('after an event has failed, no later one of its key is sent, and the others are', async () => {
    const topic = newTopic()
    const transport = kafka({ producer: newProducer(), topic, maxMessageBytes: 2000, envelope: 'raw' })
    // Requests of one event each.
    const events = manyEvents(6, (n) => ({ orderingKey: `key-${n % 2}`, payload: 'x'.repeat(1500) }))
    // INVALID_RECORD, for the first.
    await cluster.fail(apiKeys.produce, [87])
    const results = await transport.publish(events, { signal })
    expect(results.map(({ status }) => status)).toEqual([
      'rejected',
      'delivered',
      'retry',
      'delivered',
      'retry',
      'delivered',
    ])
    expect((await reader.records(topic, 3)).map(({ headers }) => headers['id'])).toEqual(
      [1, 3, 5].map((n) => events[n]?.id),
    )
  })

  /** Publishes numbered events of some keys through a bus that forwards them. */
  async function forwarded(
    to: Transport,
    count: number,
    read: (published: () => number) => Promise<readonly ReadRecord[]>,
  ): Promise<readonly ReadRecord[]> {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    await bus.migrate()
    bus.forward({
      name: 'to-kafka',
      events: ['note'],
      to,
      retry: { maxAttempts: 60, delaySeconds: 1, backoff: false },
    })
    await bus.start()
    let published = 0
    const publishing = (async () => {
      for (; published < count; published += 100)
        await Promise.all(
          Array.from({ length: 100 }, async (_, n) =>
            bus.tryPublish({
              type: 'note',
              tenantId: `tenant-${n % 4}`,
              orderingKey: `key-${n % 20}`,
              payload: { round: published / 100, n },
            }),
          ),
        )
    })()
    const records = await read(() => published)
    await publishing
    return records
  }

  /** How many events are there, and the keys whose events came in another order; what is there twice has the same id. */
  function findingsOf(records: readonly ReadRecord[]): { count: number; disorderly: string[] } {
    const first = new Map<string, { key: string; round: number }>()
    for (const { value, key } of records) {
      const { id, data: given } = cloudEventIn(value)
      const data = given as { round: number; n: number }
      if (!first.has(id)) first.set(id, { key: `${String(key)} ${data.n}`, round: data.round })
    }
    const byKey = [...Map.groupBy(first.values(), ({ key }) => key)]
    const disorderly = byKey
      .filter(([, ofKey]) => ofKey.some(({ round }, n) => n > 0 && round <= (ofKey[n - 1]?.round ?? -1)))
      .map(([key]) => key)
    return { count: first.size, disorderly }
  }

  test('a bus forwards', async () => {
    const topic = newTopic()
    const url = `kafka://${cluster.brokers.join(',')}/${topic}`
    const records = await forwarded(transportFromUrl(url), 300, async () => reader.records(topic, 300))
    expect(findingsOf(records)).toEqual({ count: 300, disorderly: [] })
  })

  describe('when brokers refuse', () => {
    const oneKey = manyEvents(8, () => ({ orderingKey: 'k' }))

    test.each([
      ['@platformatic/kafka', () => newProducer()],
      ['kafkajs', () => newKafkaJsProducer()],
    ])('a batch that is too large is cut, by %s', async (_, producerOf) => {
      const topic = newTopic()
      const transport = kafka({ producer: producerOf(), topic })
      // MESSAGE_TOO_LARGE: for all, for the first four, for the first two, for the first.
      await cluster.fail(apiKeys.produce, [10, 10, 10, 10])
      const results = await transport.publish(oneKey, { signal })
      expect(results.map(({ status }) => status)).toEqual(['rejected', ...Array<string>(7).fill('retry')])
      // The first is not sent again, and the others are.
      const again = await transport.publish(oneKey.slice(1), { signal })
      expect(again.map(({ status }) => status)).toEqual(Array<string>(7).fill('delivered'))
      expect(await reader.records(topic, 7)).toHaveLength(7)
    })

    test('events of other keys are not affected by one that is too large', async () => {
      const topic = newTopic()
      const transport = kafka({ producer: newProducer(), topic })
      await cluster.fail(apiKeys.produce, [10])
      const results = await transport.publish(
        manyEvents(40, (n) => ({ orderingKey: `k${n}` })),
        { signal },
      )
      expect(results.map(({ status }) => status)).toEqual(Array<string>(40).fill('delivered'))
    })

    test.each([
      ['NOT_LEADER_OR_FOLLOWER', 6],
      ['NOT_ENOUGH_REPLICAS', 19],
      ['TOPIC_AUTHORIZATION_FAILED', 29],
      ['a connection that is closed', -195],
    ])('%s is retried', async (_, code) => {
      const topic = newTopic()
      const transport = kafka({ producer: newProducer(), topic })
      await cluster.fail(apiKeys.produce, Array<number>(8).fill(code))
      const results = await transport.publish(oneKey, { signal })
      expect(results.map(({ status }) => status)).toEqual(Array<string>(8).fill('retry'))
      // Those that were not needed.
      await until('the broker accepts events', async () => {
        const [first] = await transport.publish([contractEvent({})], { signal })
        return first?.status === 'delivered'
      })
    })

    test('a leader that has moved is found in the same call', async () => {
      const topic = newTopic()
      const producer = newProducer()
      const transport = kafka({ producer, topic })
      const events = manyEvents(60, (n) => ({ orderingKey: `k${n}` }))
      await transport.publish(events, { signal })
      const { topics } = await producer.metadata({ topics: [topic] })
      for (const [partition, { leader }] of (topics.get(topic)?.partitions ?? []).entries())
        await cluster.moveLeader(topic, partition, (leader % 3) + 1)
      const results = await transport.publish(events, { signal })
      expect(results.map(({ status }) => status)).toEqual(Array(60).fill('delivered'))
    })

    test('one broker is down: the events of the others are delivered, and all are when it is up again', async () => {
      const topic = newTopic()
      const producer = newProducer()
      const transport = kafka({ producer, topic })
      for (let partition = 0; partition < partitionCount; partition += 1)
        await cluster.moveLeader(topic, partition, (partition % 3) + 1)
      const events = manyEvents(60, (n) => ({ orderingKey: `k${n}` }))
      await cluster.down(2)
      onTestFinished(async () => cluster.up(2))
      const results = await transport.publish(events, { signal })
      const isOnTwo = ({ orderingKey }: StoredEvent): boolean =>
        partitionOf(Buffer.from(`tenant-0/${orderingKey}`), partitionCount) % 3 === 1
      expect(results.map(({ status }) => status)).toEqual(
        events.map((event) => (isOnTwo(event) ? 'retry' : 'delivered')),
      )
      expect(events.filter(isOnTwo).length).toBeGreaterThan(5)
      await cluster.up(2)
      const again = await transport.publish(events.filter(isOnTwo), { signal })
      expect(new Set(again.map(({ status }) => status))).toEqual(new Set(['delivered']))
      expect(await reader.records(topic, 60)).toHaveLength(60)
    })

    test('a partition without a leader is retried, and `check` says it', async () => {
      const topic = newTopic()
      const transport = kafka({ producer: newProducer(), topic })
      await transport.check({ signal })
      await cluster.moveLeader(topic, 3, -1)
      onTestFinished(async () => cluster.moveLeader(topic, 3, 1))
      await expect(transport.check({ signal })).rejects.toThrow('1 of 4 partitions have no leader')
      const events = manyEvents(60, (n) => ({ orderingKey: `k${n}` }))
      const results = await transport.publish(events, { signal })
      expect(results.map(({ status }) => status)).toEqual(
        events.map(({ orderingKey }) =>
          partitionOf(Buffer.from(`tenant-0/${orderingKey}`), partitionCount) === 3 ? 'retry' : 'delivered',
        ),
      )
    })
  })

  test('a call whose signal is aborted ends at once, also while the client tries again', async () => {
    const producer = new Producer({ clientId: 'test', bootstrapBrokers: ['127.0.0.1:1'], retries: true })
    onTestFinished(async () => producer.close())
    const transport = kafka({ producer, topic: 'orders' })
    const controller = new AbortController()
    const call = transport.publish([contractEvent({})], { signal: controller.signal })
    setTimeout(() => controller.abort(new Error('nobody waits')), 50)
    await expect(call).rejects.toThrow('nobody waits')
    await expect(transport.check({ signal: AbortSignal.abort(new Error('neither')) })).rejects.toThrow(
      'neither',
    )
  })

  test('a producer that was passed is not closed, and has no listeners left', async () => {
    const producer = newProducer()
    const before = producer.eventNames().map((name) => [name, producer.listenerCount(name as 'client:close')])
    const topic = newTopic()
    const transport = kafka({ producer, topic })
    await transport.publish([contractEvent({})], { signal })
    await transport.close()
    expect(producer.closed).toBe(false)
    expect(
      producer.eventNames().map((name) => [name, producer.listenerCount(name as 'client:close')]),
    ).toEqual(before)
  })

  test.runIf(isFullForm)(
    'of 20,000 events none is lost and each key is in order, with brokers that go down and leaders that move',
    { timeout: 400_000 },
    async () => {
      const topic = `many-${randomUUID()}`
      await cluster.createTopic(topic, 12)
      const many = await createKafkaReader(cluster, [topic])
      onTestFinished(async () => many.close())
      const url = `kafka://${cluster.brokers.join(',')}/${topic}`
      const read = await forwarded(transportFromUrl(url), 20_000, async (published) => {
        for (const [at, broker] of [
          [4000, 1],
          [9000, 2],
          [14_000, 3],
        ] as const) {
          await until('some are published', () => published() >= at, 200_000)
          await cluster.down(broker)
          await new Promise((resolve) => {
            setTimeout(resolve, 3000)
          })
          for (let partition = 0; partition < 12; partition += 4)
            await cluster.moveLeader(topic, partition, (broker % 3) + 1)
          await cluster.up(broker)
        }
        await until('all are published', () => published() >= 20_000, 200_000)
        let records: readonly ReadRecord[] = []
        const ids = (): number => new Set(records.map(({ value }) => cloudEventIn(value).id)).size
        for (let tries = 0; tries < 20 && ids() < 20_000; tries += 1) records = await many.records(topic, 1e6)
        return records
      })
      expect(findingsOf(read)).toEqual({ count: 20_000, disorderly: [] })
    },
  )
})
