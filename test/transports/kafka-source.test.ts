import { Consumer, Producer } from '@platformatic/kafka'
import kafkajs from 'kafkajs'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { kafka } from '../../src/transports/adapters/kafka.ts'
import { kafkaSource, type KafkaSourceOptions } from '../../src/transports/adapters/kafka-source.ts'
import type { ReceivedMessage, ReceiveMessages, Source } from '../../src/transports/receiving/source.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { isFullForm } from '../support/form.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { startOwnServer } from '../support/own-server.ts'
import { startProgram, type ProgramProcess } from '../support/processes.ts'
import { apiKeys, librdkafkaPath, startKafkaCluster, type KafkaCluster } from '../support/kafka-cluster.ts'

const signal = new AbortController().signal

const anyConsumer = { consume: async () => {}, commit: async () => {} }

describe('options', () => {
  test.each<readonly [string, unknown, string]>([
    ['none', undefined, 'options like { consumer, topics }'],
    ['no consumer', { topics: 't' }, '`consumer` to be a consumer of @platformatic/kafka or of kafkajs'],
    ['no topic', { consumer: anyConsumer }, '`topics` to be a topic, or several'],
    ['an empty list', { consumer: anyConsumer, topics: [] }, '`topics` to be a topic, or several'],
    ['a topic that cannot be', { consumer: anyConsumer, topics: ['a', 'b c'] }, '`topics` to be a topic'],
    ['an unknown key', { consumer: anyConsumer, topic: 't' }, 'Unknown option `topic` in kafkaSource'],
    [
      'an unknown start',
      { consumer: anyConsumer, topics: 't', startAt: 'newest' },
      "`startAt` to be 'earliest' or 'latest', got \"newest\"",
    ],
    ['no batch', { consumer: anyConsumer, topics: 't', batchSize: 0 }, '`batchSize` to be an integer'],
  ])('%s is refused', (_, options, message) => {
    expect(() => kafkaSource(options as KafkaSourceOptions)).toThrow(
      expect.objectContaining({
        code: 'BUS_INVALID_OPTION',
        message: expect.stringContaining(message) as string,
      }),
    )
  })
})

type AnyConsumer = KafkaSourceOptions['consumer']

/** What the calls of a source have passed on, and what they were answered. */
interface Received {
  readonly source: Source
  readonly messages: ReceivedMessage[]
  readonly failures: unknown[]
}

// Debian's package librdkafka1 brings the brokers.
describe.skipIf(librdkafkaPath === undefined)('with brokers', () => {
  let cluster: KafkaCluster
  let producer: Producer
  let topicCount = 0

  async function open(): Promise<void> {
    cluster = await startKafkaCluster()
    producer = new Producer({
      clientId: 'test',
      bootstrapBrokers: cluster.brokers,
      autocreateTopics: true,
      retries: 10,
      retryDelay: 100,
    })
  }

  async function close(): Promise<void> {
    await producer.close()
    await cluster.stop()
  }

  /** For a test that disturbs brokers, and their members with them: the next one finds new ones. */
  function renewAfterTest(): void {
    onTestFinished(async () => {
      await close()
      await open()
    })
  }

  beforeAll(open)
  afterAll(close)

  async function newTopic(): Promise<string> {
    topicCount += 1
    const topic = `in-${topicCount}`
    await producer.metadata({ topics: [topic] })
    return topic
  }

  function platformaticConsumer(groupId: string): Consumer {
    const consumer = new Consumer({
      clientId: 'test',
      groupId,
      bootstrapBrokers: cluster.brokers,
      retries: 1,
      retryDelay: 50,
      maxWaitTime: 50,
      sessionTimeout: 6000,
      heartbeatInterval: 500,
    })
    onTestFinished(async () => consumer.close(true))
    return consumer
  }

  function kafkaJsConsumer(groupId: string): kafkajs.Consumer {
    const client = new kafkajs.Kafka({
      clientId: 'test',
      brokers: cluster.brokers,
      logLevel: kafkajs.logLevel.NOTHING,
      retry: { retries: 2, initialRetryTime: 50 },
    })
    const consumer = client.consumer({
      groupId,
      maxWaitTimeInMs: 50,
      sessionTimeout: 6000,
      heartbeatInterval: 500,
    })
    onTestFinished(async () => consumer.disconnect())
    return consumer
  }

  const clients: readonly (readonly [string, (groupId: string) => AnyConsumer])[] = [
    ['@platformatic/kafka', platformaticConsumer],
    ['kafkajs', kafkaJsConsumer],
  ]

  async function started(
    consumer: AnyConsumer,
    topics: string | string[],
    more: { readonly receive?: ReceiveMessages; readonly batchSize?: number } = {},
  ): Promise<Received> {
    const messages: ReceivedMessage[] = []
    const failures: unknown[] = []
    const source = kafkaSource({ consumer, topics, batchSize: more.batchSize })
    onTestFinished(async () => source.stop())
    await source.start(
      async (given, call) => {
        await more.receive?.(given, call)
        messages.push(...given)
      },
      { signal, reportFailure: (error) => void failures.push(error) },
    )
    return { source, messages, failures }
  }

  /** Sends numbers, each to the partition that is its rest. */
  async function send(topic: string, from: number, to: number): Promise<void> {
    const messages = Array.from({ length: to - from }, (_, n) => ({
      topic,
      partition: (from + n) % 4,
      key: Buffer.from(`key-${(from + n) % 4}`),
      value: Buffer.from(JSON.stringify(from + n)),
      headers: new Map([[Buffer.from('Some-Header'), Buffer.from('ü')]]),
    }))
    // Leaders may have moved.
    await producer.metadata({ topics: [topic], forceUpdate: true })
    for (let at = 0; at < messages.length; at += 500)
      await producer.send({ messages: messages.slice(at, at + 500), acks: -1 })
  }

  const numbersOf = (messages: readonly ReceivedMessage[]): number[] =>
    messages.map(({ body }) => Number(Buffer.from(body).toString()))

  const distinct = (messages: readonly ReceivedMessage[]): number => new Set(numbersOf(messages)).size

  /** The partitions whose messages came in another order; what comes again counts where it came first. */
  function disorderlyIn(messages: readonly ReceivedMessage[]): number[] {
    const seen = new Set<string>()
    const first = messages.filter(({ id }) => !seen.has(id ?? '') && seen.add(id ?? ''))
    return [0, 1, 2, 3].filter((rest) => {
      const ofPartition = numbersOf(first).filter((number) => number % 4 === rest)
      return ofPartition.some((number, n) => number <= (ofPartition[n - 1] ?? -1))
    })
  }

  describe.each(clients)('by %s', (client, consumerOf) => {
    // Each member that joins a group waits for three seconds. kafkajs goes through all of it in the full form alone.
    const isRun = client === '@platformatic/kafka' || isFullForm

    test.runIf(isRun)('messages have the id of their place, and all else that came', async () => {
      const topic = await newTopic()
      const { messages, failures } = await started(consumerOf(topic), topic)
      await send(topic, 0, 40)
      await until('all are received', () => messages.length >= 40)
      const message = messages.find(({ body }) => Buffer.from(body).toString() === '5')
      expect(message).toMatchObject({
        id: `${topic}/1/1`,
        headers: { 'some-header': 'ü' },
        contentType: undefined,
        key: 'key-1',
        from: topic,
        protocol: 'kafka',
      })
      expect(messages).toHaveLength(40)
      expect(disorderlyIn(messages)).toEqual([])
      expect(failures).toEqual([])
    })

    test('offsets are committed after messages are stored, and a later member of the group goes on there', async () => {
      const topic = await newTopic()
      const first = await started(consumerOf(topic), topic)
      await send(topic, 0, 40)
      await until('all are received', () => first.messages.length === 40)
      await first.source.stop()
      await first.source.stop()
      await send(topic, 40, 60)
      const second = await started(consumerOf(topic), topic)
      await until('the others are received', () => second.messages.length >= 20)
      expect(numbersOf(second.messages).toSorted((a, b) => a - b)).toEqual(
        Array.from({ length: 20 }, (__, n) => 40 + n),
      )
    })

    test.runIf(isRun)(
      'what could not be stored is passed on again, and not committed meanwhile',
      async () => {
        const topic = await newTopic()
        let failing = true
        const first = await started(consumerOf(topic), topic, {
          async receive() {
            if (failing) throw new Error('the database is down')
          },
        })
        await send(topic, 0, 10)
        await until('it has failed twice', () => first.failures.length >= 2)
        expect(first.failures[0]).toMatchObject({ message: 'the database is down' })
        await first.source.stop()
        failing = false
        const second = await started(consumerOf(topic), topic)
        await until('all are received', () => second.messages.length >= 10)
        expect(first.messages).toEqual([])
        expect(distinct(second.messages)).toBe(10)
      },
    )

    test.runIf(isRun)(
      'a call that runs when the source stops is waited for, and committed',
      { tags: ['slow'] },
      async () => {
        const topic = await newTopic()
        const storing = Promise.withResolvers<void>()
        const begun = Promise.withResolvers<void>()
        const first = await started(consumerOf(topic), topic, {
          async receive(__, call) {
            begun.resolve()
            await storing.promise
            call.signal.throwIfAborted()
          },
        })
        await send(topic, 0, 1)
        await begun.promise
        const stopped = first.source.stop()
        storing.resolve()
        await stopped
        expect(first.messages).toHaveLength(1)
        await send(topic, 1, 2)
        const second = await started(consumerOf(topic), topic)
        await until('the other is received', () => second.messages.length >= 1)
        expect(numbersOf(second.messages)).toEqual([1])
      },
    )

    test.runIf(isRun)(
      'goes on after a broker was down, a leader has moved, and commits and heartbeats were refused',
      { tags: ['slow'] },
      async () => {
        renewAfterTest()
        const topic = await newTopic()
        for (let partition = 0; partition < 4; partition += 1)
          await cluster.moveLeader(topic, partition, (partition % 3) + 1)
        const received = await started(consumerOf(topic), topic)
        await send(topic, 0, 40)
        await until('the first are received', () => distinct(received.messages) === 40)
        // REBALANCE_IN_PROGRESS, UNKNOWN_MEMBER_ID, NOT_COORDINATOR.
        await cluster.fail(apiKeys.offsetCommit, [27, 25, 16])
        await send(topic, 40, 80)
        await until('the second are received', () => distinct(received.messages) === 80)
        await cluster.fail(apiKeys.heartbeat, [27, 25])
        await cluster.down(2)
        for (let partition = 0; partition < 4; partition += 1)
          await cluster.moveLeader(topic, partition, ((partition + 1) % 3) + 1)
        await new Promise((resolve) => {
          setTimeout(resolve, 1000)
        })
        await cluster.up(2)
        await send(topic, 80, 120)
        await until('all are received', () => distinct(received.messages) === 120)
        expect(disorderlyIn(received.messages)).toEqual([])
      },
    )

    test.runIf(isRun)(
      'two members share the partitions, and the one that stays gets those of the other',
      { tags: ['slow'] },
      async () => {
        const topic = await newTopic()
        // Of a group with another coordinator these brokers never tell the first member that a second one has come.
        const group = 'in-1'
        const one = await started(consumerOf(group), topic)
        await send(topic, 0, 20)
        await until('the first are received', () => one.messages.length >= 20)
        const two = await started(consumerOf(group), topic)
        let sent = 20
        await until('both receive', async () => {
          await send(topic, sent, sent + 20)
          sent += 20
          await new Promise((resolve) => {
            setTimeout(resolve, 200)
          })
          return two.messages.length > 0
        })
        await one.source.stop()
        await send(topic, sent, sent + 20)
        sent += 20
        await until('all are received', () => distinct([...one.messages, ...two.messages]) === sent)
        expect(two.messages.length).toBeGreaterThan(0)
      },
    )
  })

  test('a consumer that was passed is not closed, and has no listeners left', async () => {
    const consumer = platformaticConsumer('listeners')
    const names = ['error', 'consumer:heartbeat:stalled'] as const
    const counts = (): number[] => names.map((name) => consumer.listenerCount(name as 'client:close'))
    const before = counts()
    const topic = await newTopic()
    const { source } = await started(consumer, topic)
    await until('it listens', () => counts().some((count, n) => count > (before[n] ?? 0)))
    await source.check({ signal })
    await source.stop()
    expect(counts()).toEqual(before)
    expect(consumer.closed).toBe(false)
  })

  test('a system that is down fails `check`, and is waited for', async () => {
    const consumer = new Consumer({
      clientId: 'test',
      groupId: 'nobody',
      bootstrapBrokers: ['127.0.0.1:1'],
      retries: 0,
    })
    onTestFinished(async () => consumer.close(true))
    const { source, failures } = await started(consumer, 'orders')
    await expect(source.check({ signal })).rejects.toThrow(/./)
    await until('it has tried twice', () => failures.length >= 2)
    await source.stop()
  })

  test('CloudEvents become events, once each although each was sent twice; others go to the quarantine', async () => {
    const topic = await newTopic()
    const events = [
      ...manyEvents(50, (n) => ({ type: 'note', orderingKey: `k${n % 5}` })),
      contractEvent({ type: 'payment.paid', payload: 'not what the schema says' }),
    ]
    for (const envelope of ['structured', 'binary'] as const)
      await kafka({ producer, topic, envelope }).publish(events, { signal })
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    await bus.migrate()
    bus.receive({
      name: 'from-kafka',
      from: kafkaSource({ consumer: platformaticConsumer(topic), topics: topic }),
    })
    await bus.start()
    const countOf = async (table: string): Promise<number> =>
      database.count(`select count(*) from bus.${table}`)
    await until(
      'all are stored',
      async () => (await countOf('events')) === 50 && (await countOf('quarantined_messages')) === 2,
    )
    expect(
      await database.rows('select distinct tenant_id, ordering_key from bus.events order by ordering_key'),
    ).toEqual(Array.from({ length: 5 }, (_, n) => ({ tenant_id: 'tenant-0', ordering_key: `k${n}` })))
  })

  test.runIf(isFullForm)(
    'of 20,000 messages each becomes one event, in order, with consumers and the database that are killed',
    { timeout: 400_000 },
    async () => {
      const topic = await newTopic()
      const server = await startOwnServer()
      const start = async (): Promise<ProgramProcess> =>
        startProgram('kafka-receiving-process.ts', server.url, cluster.brokers.join(), topic)
      let process = await start()
      const sending = (async () => {
        for (let n = 0; n < 20_000; n += 1000) await send(topic, n, n + 1000)
      })()
      const stored = async (): Promise<number> =>
        server.count('select count(*) from bus.events').catch(() => 0)
      for (const [at, kill] of [
        [1000, 'consumer'],
        [5000, 'database'],
        [9000, 'consumer'],
        [13_000, 'database'],
        [17_000, 'consumer'],
      ] as const) {
        await until(`${at} are stored`, async () => (await stored()) >= at)
        if (kill === 'consumer') {
          process.child.kill('SIGKILL')
          await process.exited
          process = await start()
        } else {
          await server.kill()
          await server.restart()
        }
      }
      await sending
      await until('all are stored', async () => (await stored()) >= 20_000)
      const rows = await server.rows(
        'select ordering_key, array_agg(payload::text::int order by id) as numbers from bus.events group by 1 order by 1',
      )
      expect(rows).toEqual(
        Array.from({ length: 4 }, (_, rest) => ({
          ordering_key: `key-${rest}`,
          numbers: Array.from({ length: 5000 }, (__, n) => n * 4 + rest),
        })),
      )
      expect(await server.count('select count(*) from bus.quarantined_messages')).toBe(0)
    },
  )
})
