import { SendMessageBatchCommand, SQS, type SQSClient } from '@aws-sdk/client-sqs'
import { describe, expect, onTestFinished, test } from 'vitest'
import { contractEvent } from '../../src/testing/transport-contract-events.ts'
import { sns } from '../../src/transports/adapters/sns.ts'
import { sqs, sqsSource, type SqsSourceOptions } from '../../src/transports/adapters/sqs.ts'
import type { ReceivedMessage, Source } from '../../src/transports/index.ts'
import { present } from '../support/forwarding.ts'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import {
  clientOptions,
  newQueue,
  newTopic,
  scriptedClient,
  startQueues,
  type AwsRequest,
  type Queues,
} from '../support/fauxqs.ts'

const { signal } = new AbortController()

interface Scene {
  readonly queues: Queues
  readonly queueUrl: string
  readonly database: TestDatabase
  readonly bus: PaymentBus
}

const toNote = ({ body, key: orderingKey }: ReceivedMessage) => {
  const payload: unknown = JSON.parse(Buffer.from(body).toString())
  return { type: 'note', tenantId: 't', orderingKey, payload } as const
}

async function receiving(
  kind: 'standard' | 'fifo' = 'standard',
  options: Partial<SqsSourceOptions> = {},
  map: ((message: ReceivedMessage) => ReturnType<typeof toNote>) | undefined = toNote,
): Promise<Scene> {
  const queues = await startQueues()
  const queueUrl = newQueue(queues, kind)
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.receive({ name: 'in', from: sqsSource({ client: queues.sqs, queueUrl, ...options }), map })
  await bus.start()
  return { queues, queueUrl, database, bus }
}

async function fill(client: SQSClient, QueueUrl: string, bodies: readonly object[]): Promise<void> {
  for (let at = 0; at < bodies.length; at += 10)
    await client.send(
      new SendMessageBatchCommand({
        QueueUrl,
        Entries: bodies.slice(at, at + 10).map((body, index) => ({
          Id: String(index),
          MessageBody: JSON.stringify(body),
          ...(QueueUrl.endsWith('.fifo')
            ? {
                MessageGroupId: String((body as { readonly key?: unknown }).key),
                MessageDeduplicationId: String(at + index),
              }
            : {}),
        })),
      }),
    )
}

/** Messages that are in the queue, hidden ones too. */
function leftIn({ queues, queueUrl }: Pick<Scene, 'queues' | 'queueUrl'>): number {
  const { messages } = present(
    queues.server.inspectQueue(queueUrl.split('/').at(-1) ?? ''),
    'there is no queue',
  )
  return messages.ready.length + messages.inflight.length + messages.delayed.length
}

const stored = 'select count(*) from bus.events'

test('each message becomes one event, and is deleted', async () => {
  const scene = await receiving()
  const bodies = Array.from({ length: 100 }, (_, n) => ({ n }))
  await fill(scene.queues.sqs, scene.queueUrl, bodies)
  await until('the queue is empty', () => leftIn(scene) === 0)
  const rows = await scene.database.rows(`select payload, idempotency_key from bus.events`)
  expect(rows.map(({ payload }) => (payload as { n: number }).n).toSorted((a, b) => a - b)).toEqual(
    bodies.map(({ n }) => n),
  )
  for (const { idempotency_key: key } of rows) expect(key).toMatch(/^in:[0-9a-f-]{36}$/)
})

test('the events of a FIFO queue are in the log in the order of their groups', async () => {
  const scene = await receiving('fifo')
  const bodies = Array.from({ length: 120 }, (_, n) => ({ key: `k${n % 6}`, n }))
  await fill(scene.queues.sqs, scene.queueUrl, bodies)
  await until('the queue is empty', () => leftIn(scene) === 0)
  const rows = await scene.database.rows('select payload, ordering_key from bus.events order by id')
  for (const key of ['k0', 'k1', 'k2', 'k3', 'k4', 'k5'])
    expect(rows.filter((row) => row['ordering_key'] === key).map(({ payload }) => payload)).toEqual(
      bodies.filter((body) => body.key === key),
    )
})

test('a message that is delivered again, because it could not be deleted, becomes no second event', async () => {
  const { sqs: client, server } = await startQueues()
  const { queueUrl } = server.createQueue('undeleted', { attributes: { VisibilityTimeout: '1' } })
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let deliveredCount = 0
  let isBroken = true
  const aggregated = new SQS(clientOptions(server.port))
  onTestFinished(() => aggregated.destroy())
  const real = {
    send: async (command: never, options?: never) => client.send(command, options as never),
    async receiveMessage(input: object, options: object) {
      const answer = await aggregated.receiveMessage({ ...input, VisibilityTimeout: 1 } as never, options)
      deliveredCount += answer.Messages?.length ?? 0
      return answer
    },
    async deleteMessageBatch(input: object, options: object) {
      if (isBroken) throw new Error('the connection is lost')
      return aggregated.deleteMessageBatch(input as never, options)
    },
    changeMessageVisibilityBatch: async (input: object, options: object) =>
      aggregated.changeMessageVisibilityBatch(input as never, options),
    getQueueAttributes: async (input: object, options: object) =>
      aggregated.getQueueAttributes(input as never, options),
  }
  bus.receive({ name: 'in', from: sqsSource({ client: real, queueUrl }), map: toNote })
  await bus.start()
  await fill(client, queueUrl, [{ n: 1 }, { n: 2 }])
  await until('they have come again', () => deliveredCount >= 5)
  isBroken = false
  await until(
    'the queue is empty',
    () => leftIn({ queues: { server, sqs: client, sns: undefined as never }, queueUrl }) === 0,
  )
  expect(await database.count(stored)).toBe(2)
})

test('a CloudEvent that sqs or sns has sent becomes the same event, wrapped by SNS or not', async () => {
  const queues = await startQueues()
  const raw = newTopic(queues)
  const wrapped = newTopic(queues, { isRaw: false })
  const queueUrl = newQueue(queues)
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  for (const [name, url] of [
    ['direct', queueUrl],
    ['raw', raw.queueUrl],
    ['wrapped', wrapped.queueUrl],
  ] as const)
    bus.receive({ name, from: sqsSource({ client: queues.sqs, queueUrl: url }) })
  await bus.start()
  const payload = { text: 'ü 漢 🚀 \uFFFE "quoted" \n', n: 1 }
  const events = [1, 2, 3].map(() =>
    contractEvent({ type: 'note', tenantId: 'acme', orderingKey: 'k', subject: 'notes/1', payload }),
  )
  const [first = expect.unreachable(), second = expect.unreachable(), third = expect.unreachable()] = events
  const client = queues.sns
  expect(await sqs({ client: queues.sqs, queueUrl }).publish([first], { signal })).toEqual([
    { status: 'delivered' },
  ])
  await sns({ client, topicArn: raw.topicArn }).publish([second], { signal })
  await sns({ client, topicArn: wrapped.topicArn }).publish([third], { signal })
  await until('all are stored', async () => (await database.count(stored)) === 3)
  const rows = await database.rows(
    'select tenant_id, ordering_key, subject, payload, metadata from bus.events',
  )
  for (const row of rows)
    expect(row).toMatchObject({ tenant_id: 'acme', ordering_key: 'k', subject: 'notes/1', payload })
  expect(rows.map(({ metadata }) => (metadata as { ceid: string }).ceid).toSorted()).toEqual(
    events.map(({ id }) => id).toSorted(),
  )
})

test('what `map` is given: attributes as headers, the group as key, the topic of a notification', async () => {
  const got: ReceivedMessage[] = []
  const scene = await receiving('fifo', {}, (message) => {
    got.push(message)
    return { type: 'note', tenantId: 't', orderingKey: undefined, payload: 1 }
  })
  const { server } = scene.queues
  const queue = scene.queueUrl.split('/').at(-1) ?? ''
  server.sendMessage(queue, 'plain text', {
    messageAttributes: {
      'Content-Type': { DataType: 'String', StringValue: 'text/plain' },
      Number: { DataType: 'Number', StringValue: '7' },
    },
    messageGroupId: 'g',
    messageDeduplicationId: '1',
  })
  await until('it is stored', () => got.length === 1)
  expect(got[0]).toMatchObject({
    ...{ headers: { number: '7' }, contentType: 'text/plain', key: 'g', from: queue, protocol: undefined },
  })
  expect(Buffer.from(got[0]?.body ?? []).toString()).toBe('plain text')
  const notification = {
    ...{ Type: 'Notification', MessageId: 'm', TopicArn: 'arn:aws:sns:a:000000000000:t', Message: '[1]' },
    MessageAttributes: { type: { Type: 'String', Value: 'a' }, bytes: { Type: 'Binary', Value: 'w7w=' } },
  }
  const others = [{ ...notification, Type: 'Other' }, { TopicArn: 1 }]
  for (const [index, body] of [notification, ...others].entries())
    server.sendMessage(queue, JSON.stringify(body), {
      messageGroupId: `g${index}`,
      messageDeduplicationId: `n${index}`,
    })
  await until('all are stored', () => got.length === 4)
  const bodies = got.map(({ body }) => Buffer.from(body).toString())
  expect(bodies.toSorted()).toEqual(
    ['plain text', '[1]', ...others.map((each) => JSON.stringify(each))].toSorted(),
  )
  expect(got.find((_, n) => bodies[n] === '[1]')?.headers).toEqual({
    ...{ type: 'a', bytes: 'ü', 'x-amz-sns-message-id': 'm', 'x-amz-sns-topic-arn': notification.TopicArn },
  })
})

test('poison is kept in the quarantine, and leaves the queue', async () => {
  const scene = await receiving()
  scene.queues.server.sendMessage(scene.queueUrl.split('/').at(-1) ?? '', '{no json')
  await fill(scene.queues.sqs, scene.queueUrl, [{ n: 1 }])
  await until('the queue is empty', () => leftIn(scene) === 0)
  expect(await scene.database.count(stored)).toBe(1)
  expect(await scene.database.rows('select state, code from bus.quarantined_messages')).toMatchObject([
    { state: 'new', code: 'BUS_MAP_FAILED' },
  ])
})

describe('while the database is slow or down', () => {
  const names = [
    'ReceiveMessage',
    'DeleteMessageBatch',
    'ChangeMessageVisibilityBatch',
    'GetQueueAttributes',
  ] as const
  const queueUrl = 'https://sqs.eu-central-1.amazonaws.com/123456789012/q'

  function scripted(options: Partial<SqsSourceOptions> = {}): {
    readonly source: Source
    readonly requests: AwsRequest[]
    readonly of: (command: string) => readonly AwsRequest[]
  } {
    let isFirst = true
    const { client, commands, requests } = scriptedClient(names, async ({ command, signal }) => {
      if (command !== 'ReceiveMessage') return {}
      if (isFirst) {
        isFirst = false
        return { Messages: [1, 2].map((n) => ({ MessageId: `m${n}`, ReceiptHandle: `r${n}`, Body: `${n}` })) }
      }
      return new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error))
      })
    })
    const source = sqsSource({ client, commands, queueUrl, concurrency: 1, ...options })
    return { source, requests, of: (command) => requests.filter((each) => each.command === command) }
  }

  function contextOf() {
    const failures: unknown[] = []
    const grace = new AbortController()
    return {
      failures,
      grace,
      signal: grace.signal,
      reportFailure: (error: unknown) => void failures.push(error),
    }
  }

  test('messages stay hidden, and are deleted after the commit alone', async () => {
    const { source, of } = scripted({ visibilityTimeoutSeconds: 10 })
    const committed = Promise.withResolvers<void>()
    await source.start(async () => committed.promise, contextOf())
    await until('it was extended twice', () => of('ChangeMessageVisibilityBatch').length >= 2)
    expect(of('ChangeMessageVisibilityBatch')[0]?.input).toEqual({
      QueueUrl: queueUrl,
      Entries: [1, 2].map((n) => ({ Id: String(n - 1), ReceiptHandle: `r${n}`, VisibilityTimeout: 10 })),
    })
    expect(of('DeleteMessageBatch')).toEqual([])
    committed.resolve()
    await until('they are deleted', () => of('DeleteMessageBatch').length === 1)
    await source.stop()
  })

  test('storing is tried again, without a new delivery; nothing is deleted before it has worked', async () => {
    const { source, of } = scripted()
    const context = contextOf()
    let tries = 0
    await source.start(async () => {
      tries += 1
      if (tries < 3) throw new Error('the database is down')
    }, context)
    await until('they are deleted', () => of('DeleteMessageBatch').length === 1)
    expect(tries).toBe(3)
    expect(context.failures).toHaveLength(2)
    expect(of('ChangeMessageVisibilityBatch')).toEqual([])
    await source.stop()
    await source.stop()
  })

  test('a stop gives back what could not be stored', async () => {
    const { source, of } = scripted()
    let tries = 0
    await source.start(async () => {
      tries += 1
      throw new Error('the database is down')
    }, contextOf())
    await until('it was tried', () => tries > 0)
    await source.stop()
    expect(of('DeleteMessageBatch')).toEqual([])
    expect(of('ChangeMessageVisibilityBatch').at(-1)?.input).toMatchObject({
      Entries: [
        { ReceiptHandle: 'r1', VisibilityTimeout: 0 },
        { ReceiptHandle: 'r2', VisibilityTimeout: 0 },
      ],
    })
  })

  test('a stop waits for the storing that runs, and deletes what it stored', async () => {
    const { source, of } = scripted()
    const committed = Promise.withResolvers<void>()
    let isStoring = false
    await source.start(async () => {
      isStoring = true
      await committed.promise
    }, contextOf())
    await until('it is storing', () => isStoring)
    let isStopped = false
    const stopping = source.stop().then(() => (isStopped = true))
    await new Promise(setImmediate)
    expect(isStopped).toBe(false)
    committed.resolve()
    await stopping
    expect(of('DeleteMessageBatch')).toHaveLength(1)
  })

  test('at the end of the grace what still runs is given up', async () => {
    const { source, of } = scripted()
    const context = contextOf()
    let isStoring = false
    await source.start(async (_, call) => {
      isStoring = true
      await new Promise((_resolve, reject) => {
        call.signal.addEventListener('abort', () => reject(call.signal.reason as Error))
      })
    }, context)
    await until('it is storing', () => isStoring)
    const stopping = source.stop()
    context.grace.abort(new Error('the grace is over'))
    await stopping
    expect(of('DeleteMessageBatch')).toEqual([])
  })
})

test('SQS that goes away and comes back is received from again', async () => {
  const queues = await startQueues()
  const queueUrl = newQueue(queues)
  const failures: unknown[] = []
  const got: string[] = []
  const source = sqsSource({ client: queues.sqs, queueUrl, waitTimeSeconds: 1, concurrency: 1 })
  await source.check({ signal })
  await source.start(async (messages) => void got.push(...messages.map(({ id }) => id ?? '')), {
    signal,
    reportFailure: (error) => void failures.push(error),
  })
  onTestFinished(async () => source.stop())
  await fill(queues.sqs, queueUrl, [{ n: 1 }])
  await until('the first is there', () => got.length === 1)
  const { port } = queues.server
  await queues.server.stop()
  await until('it is missed', () => failures.length > 0)
  await expect(source.check({ signal })).rejects.toThrow(/./)
  const again = await startQueues({ port })
  const { queueUrl: same } = again.server.createQueue(queueUrl.split('/').at(-1) ?? '')
  await fill(again.sqs, same, [{ n: 2 }])
  await until('the second is there', () => got.length === 2)
})

test.each<[string, unknown, string]>([
  ['no client', { queueUrl: 'https://a/b' }, '`client`'],
  ['no queue', { client: { send: () => undefined } }, '`queueUrl`'],
  [
    'too many requests',
    { client: { send: () => undefined }, queueUrl: 'https://a/b', concurrency: 51 },
    '`concurrency`',
  ],
  [
    'too short a time',
    { client: { send: () => undefined }, queueUrl: 'https://a/b', visibilityTimeoutSeconds: 9 },
    '`visibilityTimeoutSeconds`',
  ],
  [
    'too long a wait',
    { client: { send: () => undefined }, queueUrl: 'https://a/b', waitTimeSeconds: 21 },
    '`waitTimeSeconds`',
  ],
  [
    'an unknown option',
    { client: { send: () => undefined }, queueUrl: 'https://a/b', batchSize: 5 },
    '`batchSize`',
  ],
])('%s is refused', (_, options, named) => {
  expect(() => sqsSource(options as SqsSourceOptions)).toThrow(
    expect.objectContaining({
      code: 'BUS_INVALID_OPTION',
      message: expect.stringContaining(named) as string,
    }),
  )
})
