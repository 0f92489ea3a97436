import { SNS, SNSClient } from '@aws-sdk/client-sns'
import { HTTP, type CloudEvent } from 'cloudevents'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { StoredEvent } from '../../src/index.ts'
import { transportContract } from '../../src/testing/index.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { sns, type SnsOptions } from '../../src/transports/adapters/sns.ts'
import { transportFromUrl, type Transport } from '../../src/transports/index.ts'
import { present } from '../support/forwarding.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'
import {
  clientOptions,
  newTopic,
  scriptedClient,
  startQueues,
  takeMessages,
  type AwsRequest,
  type Queues,
} from '../support/fauxqs.ts'

const { signal } = new AbortController()

async function statuses(transport: Transport, events: readonly StoredEvent[]): Promise<string[]> {
  return (await transport.publish(events, { signal })).map(({ status }) => status)
}

const topicArn = 'arn:aws:sns:us-east-1:000000000000:t'

describe.each(['standard', 'fifo'] as const)('a %s topic', (kind) => {
  const made = new Map<Transport, { readonly queues: Queues; readonly queueUrl: string }>()
  const cases = transportContract({
    async create() {
      const queues = await startQueues()
      const { topicArn, queueUrl } = newTopic(queues, { isFifo: kind === 'fifo' })
      const transport = sns({ client: queues.sns, topicArn })
      made.set(transport, { queues, queueUrl })
      return transport
    },
    async receive(transport, count) {
      const { queues, queueUrl } = made.get(transport) ?? expect.unreachable()
      const messages = await takeMessages(queues.sqs, queueUrl, count)
      return messages
        .map(({ Body = '' }) => JSON.parse(Body) as { readonly id: string; readonly data: unknown })
        .map(({ id, data }) => ({ id, payload: data }))
    },
    createUnreachable() {
      const client = new SNSClient(clientOptions(1))
      onTestFinished(() => client.destroy())
      return sns({ client, topicArn: kind === 'fifo' ? `${topicArn}.fifo` : topicArn })
    },
    tooLargeBytes: 262_144,
  })
  test.each(cases)('$name', async ({ run }) => expect(await run()).toBeUndefined())
})

test('a queue behind it has the CloudEvent, which the official SDK reads, and the attributes', async () => {
  const queues = await startQueues()
  const { topicArn, queueUrl } = newTopic(queues)
  const event = contractEvent({ tenantId: 'acme', subject: 'orders/1', payload: { amount: 1 } })
  await statuses(sns({ client: queues.sns, topicArn }), [event])
  const [{ Body = '', MessageAttributes = {} } = {}] = await takeMessages(queues.sqs, queueUrl, 1)
  const contentType = MessageAttributes['content-type']?.StringValue ?? ''
  const read = HTTP.toEvent({ headers: { 'content-type': contentType }, body: Body }) as CloudEvent<unknown>
  expect(read).toMatchObject({ id: event.id, type: event.type, tenantid: 'acme', data: { amount: 1 } })
  expect(Object.keys(MessageAttributes).toSorted()).toEqual([
    'ce-id',
    'content-type',
    'source',
    'tenant',
    'type',
  ])
})

test('subscriptions can filter by type', async () => {
  const queues = await startQueues()
  const { topicArn, queueUrl } = newTopic(queues)
  const queue = queues.server.createQueue('filtered').queueUrl
  const attributes = { RawMessageDelivery: 'true', FilterPolicy: JSON.stringify({ type: ['order.paid'] }) }
  queues.server.subscribe({ topic: topicArn.split(':').at(-1) ?? '', queue: 'filtered', attributes })
  await statuses(sns({ client: queues.sns, topicArn }), [
    contractEvent({ type: 'order.paid' }),
    contractEvent({ type: 'order.placed' }),
  ])
  expect(await takeMessages(queues.sqs, queueUrl, 2)).toHaveLength(2)
  const messages = await takeMessages(queues.sqs, queue, 1)
  expect(messages.map(({ MessageAttributes }) => MessageAttributes?.['type']?.StringValue)).toEqual([
    'order.paid',
  ])
})

const names = ['PublishBatch', 'GetTopicAttributes'] as const

const entriesOf = ({ input }: AwsRequest): Readonly<Record<string, unknown>>[] =>
  input['PublishBatchRequestEntries'] as Readonly<Record<string, unknown>>[]

function scripted(options: Partial<SnsOptions> = {}): {
  readonly transport: Transport
  readonly requests: AwsRequest[]
} {
  const { client, commands, requests } = scriptedClient(names, (request) => ({
    Successful: entriesOf(request).map(({ Id }) => ({ Id })),
  }))
  return { requests, transport: sns({ client, commands, topicArn, ...options }) }
}

test('messages and requests keep to the size of the topic: 262,144 bytes, or as the option says', async () => {
  const event = (length: number): StoredEvent => contractEvent({ payload: 'x'.repeat(length) })
  for (const [options, fits] of [
    [{}, 261_000],
    [{ maxMessageBytes: 1_048_576 }, 1_047_000],
    [{ maxMessageBytes: 1024 }, 500],
  ] as const) {
    const { transport, requests } = scripted(options)
    expect(await statuses(transport, [event(fits), event(1), event(fits)])).toEqual(
      [1, 2, 3].map(() => 'delivered'),
    )
    expect(requests.map((request) => entriesOf(request).length).toSorted((a, b) => a - b)).toEqual(
      fits === 500 ? [1, 1, 1] : [1, 2],
    )
    expect(await statuses(transport, [event(fits + 2000)])).toEqual(['rejected'])
  }
})

test('a topic passes the tenant on to standard queues; a FIFO topic has groups and deduplication ids', async () => {
  const { transport, requests } = scripted()
  const event = contractEvent({ tenantId: 'acme', orderingKey: 'k' })
  await statuses(transport, [event])
  const [standard] = entriesOf(present(requests[0], 'there is no request'))
  expect(standard).toMatchObject({ MessageGroupId: 'acme' })
  expect(standard).not.toHaveProperty('MessageDeduplicationId')
  const fifo = scripted({ topicArn: `${topicArn}.fifo` })
  await statuses(fifo.transport, [event])
  const [entry] = entriesOf(present(fifo.requests[0], 'there is no request'))
  expect(entry).toMatchObject({
    MessageGroupId: expect.stringMatching(/^[\w-]{43}$/) as string,
    MessageDeduplicationId: event.id,
  })
})

test('a topic that is missing fails `check`, and its events are tried again: somebody may create it', async () => {
  const { sns: client } = await startQueues()
  const transport = sns({ client, topicArn })
  await expect(transport.check({ signal })).rejects.toThrow(/./)
  expect(
    await statuses(
      transport,
      manyEvents(2, () => ({})),
    ),
  ).toEqual(['retry', 'retry'])
})

test('the aggregated client needs no command classes', async () => {
  const queues = await startQueues()
  const client = new SNS(clientOptions(queues.server.port))
  onTestFinished(() => client.destroy())
  const { topicArn } = newTopic(queues)
  expect(await statuses(sns({ client, topicArn }), [contractEvent({})])).toEqual(['delivered'])
})

test.each<[string, unknown, string]>([
  ['no client', { topicArn }, '`client`'],
  ['no topic', { client: { send: () => undefined } }, '`topicArn`'],
  [
    'an ARN of a queue',
    { client: { send: () => undefined }, topicArn: topicArn.replace('sns', 'sqs') },
    '`topicArn`',
  ],
  [
    'too small a size',
    { client: { send: () => undefined }, topicArn, maxMessageBytes: 1023 },
    '`maxMessageBytes`',
  ],
  [
    'too large a size',
    { client: { send: () => undefined }, topicArn, maxMessageBytes: 1_048_577 },
    '`maxMessageBytes`',
  ],
  ['an unknown option', { client: { send: () => undefined }, topicArn, topic: 'x' }, '`topic`'],
])('%s is refused', (_, options, named) => {
  expect(() => sns(options as SnsOptions)).toThrow(
    expect.objectContaining({
      code: 'BUS_INVALID_OPTION',
      message: expect.stringContaining(named) as string,
    }),
  )
})

test.each([
  [`sns:${topicArn}`, 'none'],
  [`sns:${topicArn}.fifo?maxMessageBytes=1048576&envelope=raw`, 'key'],
  ['sns:arn:aws-us-gov:sns:us-gov-west-1:123456789012:orders', 'none'],
])('%s is one', (url, order) => {
  expect(transportFromUrl(url)).toMatchObject({ name: 'sns', order, maxEvents: 100 })
})

test.each([
  'sns:',
  'sns:orders',
  'sns:arn:aws:sqs:us-east-1:000000000000:t',
  `sns:${topicArn}?maxMessageBytes=1`,
  `sns:${topicArn}?envelope=binary`,
  `sns:${topicArn}?max=1`,
])('%s is refused', (url) => {
  expect(() => transportFromUrl(url)).toThrow(expect.objectContaining({ code: 'BUS_INVALID_TRANSPORT_URL' }))
})

test('bus.forward sends by URL to a FIFO topic, in the order of the keys', async () => {
  const queues = await startQueues()
  const { topicArn, queueUrl } = newTopic(queues, { isFifo: true })
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test')
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test')
  onTestFinished(() => void vi.unstubAllEnvs())
  const to = transportFromUrl(`sns:${topicArn}?endpoint=http://127.0.0.1:${queues.server.port}`)
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.forward({ name: 'out', events: ['note'], to })
  await bus.start()
  const sent = Array.from({ length: 60 }, (_, n) => ({ key: `k${n % 3}`, n }))
  await database.db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      sent.map((payload) => ({ type: 'note', tenantId: 't', orderingKey: payload.key, payload }) as const),
    ),
  )
  const messages = await takeMessages(queues.sqs, queueUrl, sent.length)
  const got = messages.map(
    ({ Body = '' }) => (JSON.parse(Body) as { readonly data: (typeof sent)[number] }).data,
  )
  for (const key of ['k0', 'k1', 'k2'])
    expect(got.filter((each) => each.key === key)).toEqual(sent.filter((each) => each.key === key))
})
