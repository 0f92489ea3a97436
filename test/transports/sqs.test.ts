import { GetQueueAttributesCommand, SQS, SQSClient, type Message } from '@aws-sdk/client-sqs'
import { HTTP, type CloudEvent } from 'cloudevents'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { createBus, type StoredEvent } from '../../src/index.ts'
import { transportContract, type ContractMessage } from '../../src/testing/index.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { sqs, type SqsOptions } from '../../src/transports/adapters/sqs.ts'
import { transportFromUrl, type PublishResult, type Transport } from '../../src/transports/index.ts'
import { present } from '../support/forwarding.ts'
import { paymentEvents, recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import {
  awsError,
  clientOptions,
  newQueue,
  scriptedClient,
  startQueues,
  takeMessages,
  type AwsRequest,
  type Queues,
} from '../support/fauxqs.ts'

const { signal } = new AbortController()

async function send(transport: Transport, events: readonly StoredEvent[]): Promise<PublishResult[]> {
  return [...(await transport.publish(events, { signal }))]
}

const statusesOf = (results: readonly PublishResult[]): string[] => results.map(({ status }) => status)

/** The CloudEvent of a message, as the official SDK reads it. */
function cloudEventOf({ Body = '', MessageAttributes = {} }: Message): CloudEvent<unknown> {
  const contentType = MessageAttributes['content-type']?.StringValue ?? ''
  return HTTP.toEvent({ headers: { 'content-type': contentType }, body: Body }) as CloudEvent<unknown>
}

describe.each(['standard', 'fifo'] as const)('a %s queue', (kind) => {
  const made = new Map<Transport, { readonly queues: Queues; readonly queueUrl: string }>()
  const cases = transportContract({
    async create() {
      const queues = await startQueues()
      const queueUrl = newQueue(queues, kind)
      const transport = sqs({ client: queues.sqs, queueUrl })
      made.set(transport, { queues, queueUrl })
      return transport
    },
    async receive(transport, count) {
      const { queues, queueUrl } = made.get(transport) ?? expect.unreachable()
      const messages = await takeMessages(queues.sqs, queueUrl, count)
      return messages.map(({ Body = '' }): ContractMessage => {
        const { id, data } = JSON.parse(Body) as { readonly id: string; readonly data: unknown }
        return { id, payload: data }
      })
    },
    createUnreachable() {
      const client = new SQSClient(clientOptions(1))
      onTestFinished(() => client.destroy())
      return sqs({ client, queueUrl: `http://127.0.0.1:1/000000000000/q${kind === 'fifo' ? '.fifo' : ''}` })
    },
    tooLargeBytes: 1_048_576,
  })
  test.each(cases)('$name', async ({ run }) => expect(await run()).toBeUndefined())
})

test('the official SDK reads a message, and its attributes can be filtered by', async () => {
  const queues = await startQueues()
  const queueUrl = newQueue(queues)
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  const event = contractEvent({
    ...{ tenantId: 'acme', orderingKey: 'o-1', subject: 'orders/1', payload: { text: 'ü\uFFFE\uFFFF🚀' } },
    metadata: { traceparent },
  })
  await send(sqs({ client: queues.sqs, queueUrl }), [event])
  const [message = expect.unreachable()] = await takeMessages(queues.sqs, queueUrl, 1)
  const read = cloudEventOf(message)
  expect(read).toMatchObject({
    ...{ id: event.id, type: event.type, source: event.source, subject: 'orders/1', data: event.payload },
    ...{ tenantid: 'acme', partitionkey: 'o-1', traceparent },
  })
  const attributes = Object.entries(message.MessageAttributes ?? {}).map(([name, value]) => [
    name,
    value.StringValue,
  ])
  expect(Object.fromEntries(attributes)).toEqual({
    'content-type': 'application/cloudevents+json',
    ...{ type: event.type, tenant: 'acme', source: event.source, 'ce-id': event.id, traceparent },
  })
})

test('the raw envelope has the payload alone', async () => {
  const queues = await startQueues()
  const queueUrl = newQueue(queues)
  await send(sqs({ client: queues.sqs, queueUrl, envelope: 'raw' }), [contractEvent({ payload: [1, 'a'] })])
  const [message] = await takeMessages(queues.sqs, queueUrl, 1)
  expect(message?.Body).toBe('[1,"a"]')
  expect(message?.MessageAttributes?.['content-type']?.StringValue).toBe('application/json')
})

test('groups: the tenant in a standard queue, tenant and key in a FIFO queue, in characters that SQS allows', async () => {
  const queues = await startQueues()
  const fifoUrl = newQueue(queues, 'fifo')
  const events = [
    contractEvent({ tenantId: 'a', orderingKey: 'b c' }),
    contractEvent({ tenantId: '漢字 🚀', orderingKey: 'b c' }),
    contractEvent({ tenantId: 'x'.repeat(255), orderingKey: 'x'.repeat(255) }),
    contractEvent({ tenantId: 'a' }),
    contractEvent({ tenantId: 'a' }),
  ]
  const all = events.map(() => 'delivered')
  const { transport, requests } = scripted(acceptAll)
  expect(statusesOf(await send(transport, events))).toEqual(all)
  // fauxqs accepts groups in standard queues, and does not give them back.
  const standard = entriesOf(present(requests[0], 'there is no request')).map(
    (entry) => entry['MessageGroupId'],
  )
  expect(standard).toEqual(['a', expect.any(String), expect.any(String), 'a', 'a'])
  expect(new Set(standard).size).toBe(3)
  const [standardUrl, client] = [newQueue(queues), queues.sqs]
  for (const queueUrl of [standardUrl, fifoUrl])
    expect(statusesOf(await send(sqs({ client, queueUrl }), events))).toEqual(all)
  const fifo = (await takeMessages(client, fifoUrl, 5)).map(({ Attributes }) => Attributes ?? {})
  expect(new Set(fifo.map(({ MessageGroupId }) => MessageGroupId)).size).toBe(5)
  expect(fifo.map(({ MessageDeduplicationId = '' }) => MessageDeduplicationId).toSorted()).toEqual(
    events.map(({ id }) => id).toSorted(),
  )
  for (const group of [...standard, ...fifo.map(({ MessageGroupId }) => MessageGroupId)])
    expect(group).toMatch(/^[!-~]{1,128}$/)
})

test('an event that is sent twice is once in a FIFO queue', async () => {
  const queues = await startQueues()
  const queueUrl = newQueue(queues, 'fifo')
  const transport = sqs({ client: queues.sqs, queueUrl })
  const event = contractEvent({ orderingKey: 'k' })
  expect(statusesOf([...(await send(transport, [event])), ...(await send(transport, [event]))])).toEqual([
    'delivered',
    'delivered',
  ])
  const { Attributes } = await queues.sqs.send(
    new GetQueueAttributesCommand({
      QueueUrl: queueUrl,
      AttributeNames: ['ApproximateNumberOfMessages'],
    }),
  )
  expect(Attributes?.['ApproximateNumberOfMessages']).toBe('1')
})

/** What SQS counts of an entry. */
function bytesOf(entry: Readonly<Record<string, unknown>>): number {
  const { MessageBody, MessageAttributes } = entry as {
    readonly MessageBody: string
    readonly MessageAttributes: Record<string, { readonly DataType: string; readonly StringValue: string }>
  }
  return Object.entries(MessageAttributes).reduce(
    (sum, [name, { DataType, StringValue }]) =>
      sum + Buffer.byteLength(name) + DataType.length + Buffer.byteLength(StringValue),
    Buffer.byteLength(MessageBody),
  )
}

const entriesOf = ({ input }: AwsRequest): Readonly<Record<string, unknown>>[] =>
  input['Entries'] as Readonly<Record<string, unknown>>[]

/** Accepts every entry. */
const acceptAll = (request: AwsRequest): unknown => ({
  Successful: entriesOf(request).map(({ Id }) => ({ Id })),
})

const names = ['SendMessageBatch', 'GetQueueAttributes'] as const
const queueUrl = 'https://sqs.eu-central-1.amazonaws.com/123456789012/q'

function scripted(
  answer: (request: AwsRequest) => unknown,
  options: Partial<SqsOptions> = {},
): { readonly transport: Transport; readonly requests: AwsRequest[] } {
  const { client, commands, requests } = scriptedClient(names, answer)
  return { requests, transport: sqs({ client, commands, queueUrl, ...options }) }
}

describe('limits', () => {
  test('a message of exactly 1,048,576 bytes is sent, one of a byte more is rejected before the call', async () => {
    const { transport, requests } = scripted(acceptAll)
    const event = (length: number): StoredEvent =>
      contractEvent({
        createdAt: new Date(1_700_000_000_000),
        payload: 'ü'.repeat(1000) + 'x'.repeat(length),
      })
    await send(transport, [event(0)])
    const [first = expect.unreachable()] = requests
    const room = 1_048_576 - bytesOf(entriesOf(first)[0] ?? {})
    expect(statusesOf(await send(transport, [event(room)]))).toEqual(['delivered'])
    expect(bytesOf(entriesOf(present(requests[1], 'there is no request'))[0] ?? {})).toBe(1_048_576)
    const [result] = await send(transport, [event(room + 1)])
    expect(result).toMatchObject({ status: 'rejected', error: { code: 'BUS_MESSAGE_TOO_LARGE' } })
    expect(requests).toHaveLength(2)
  })

  test('SQS accepts the largest message, and a request of as much', async () => {
    const queues = await startQueues()
    const queueUrl = newQueue(queues)
    const events = [1_047_000, 520_000, 520_000, 1, 2, 3].map((length) =>
      contractEvent({ payload: 'x'.repeat(length) }),
    )
    expect(statusesOf(await send(sqs({ client: queues.sqs, queueUrl }), events))).toEqual(
      events.map(() => 'delivered'),
    )
  })

  test('requests have at most ten messages and 1,048,576 bytes', async () => {
    const { transport, requests } = scripted(acceptAll)
    await send(
      transport,
      manyEvents(25, () => ({})),
    )
    expect(requests.map((request) => entriesOf(request).length)).toEqual([10, 10, 5])
    requests.length = 0
    await send(
      transport,
      manyEvents(7, () => ({ payload: 'x'.repeat(300_000) })),
    )
    expect(requests.map((request) => entriesOf(request).length)).toEqual([3, 3, 1])
  })

  test('a claim check is used when the message with its escapes is too large', async () => {
    const stored: number[] = []
    const { transport, requests } = scripted(acceptAll, {
      claimCheck: {
        async store({ id }, payload) {
          stored.push(payload.length)
          return `s3://payloads/${id}`
        },
      },
    })
    // Three bytes each, and six when escaped.
    const event = contractEvent({ payload: '\uFFFE'.repeat(180_000) })
    expect(statusesOf(await send(transport, [event]))).toEqual(['delivered'])
    expect(stored).toEqual([540_002])
    const body = JSON.parse(
      String(entriesOf(present(requests[0], 'there is no request'))[0]?.['MessageBody']),
    ) as object
    expect(body).toMatchObject({ dataref: `s3://payloads/${event.id}` })
    expect(body).not.toHaveProperty('data')
  })
})

describe('failures', () => {
  test('each entry of a batch has its own result', async () => {
    const codes = [
      undefined,
      'InvalidMessageContents',
      'InternalError',
      'ThrottlingException',
      'AWS.SimpleQueueService.NonExistentQueue',
      'KmsDisabled',
      undefined,
    ]
    const { transport } = scripted((request) => ({
      Successful: entriesOf(request).filter((_, n) => codes[n] === undefined && n !== 6),
      Failed: entriesOf(request).flatMap(({ Id }, n) =>
        codes[n] === undefined ? [] : [{ Id, Code: codes[n], Message: `entry ${n}`, SenderFault: true }],
      ),
    }))
    const results = await send(
      transport,
      manyEvents(7, () => ({})),
    )
    expect(statusesOf(results)).toEqual([
      'delivered',
      'rejected',
      'retry',
      'retry',
      'retry',
      'retry',
      // Neither among those that succeeded nor among those that failed.
      'retry',
    ])
    expect(results[1]).toMatchObject({ error: { name: 'InvalidMessageContents', message: 'entry 1' } })
  })

  test.each<[string, Error, object]>([
    ['a queue that is missing', awsError('QueueDoesNotExist'), { status: 'retry' }],
    ['a missing permission', awsError('AccessDeniedException'), { status: 'retry' }],
    ['expired credentials', awsError('ExpiredTokenException'), { status: 'retry' }],
    [
      'a pause in seconds',
      awsError('ThrottlingException', { 'retry-after': '7' }),
      { status: 'throttled', seconds: 7 },
    ],
    [
      'a pause in milliseconds',
      awsError('RequestThrottled', { 'x-amz-retry-after': '1500' }),
      { status: 'throttled', seconds: 1.5 },
    ],
    ['a limit without a pause', awsError('RequestThrottled'), { status: 'retry' }],
    ['a lost connection', Object.assign(new Error('read'), { code: 'ECONNRESET' }), { status: 'retry' }],
  ])('%s is the result of every event', async (_, error, result) => {
    const { transport, requests } = scripted(() => Promise.reject(error))
    const results = await send(
      transport,
      manyEvents(3, () => ({})),
    )
    expect(results).toEqual([1, 2, 3].map(() => ({ ...result, error })))
    expect(requests).toHaveLength(1)
  })

  test('a request that is refused because of one message is sent message by message', async () => {
    const { transport, requests } = scripted((request) => {
      const isBad = entriesOf(request).some(({ MessageBody }) => String(MessageBody).includes('"bad"'))
      if (isBad) throw awsError('InvalidParameterValue')
      return acceptAll(request)
    })
    const events = manyEvents(4, (n) => ({ payload: n === 2 ? 'bad' : 'good' }))
    expect(statusesOf(await send(transport, events))).toEqual([
      'delivered',
      'delivered',
      'rejected',
      'delivered',
    ])
    expect(requests).toHaveLength(5)
  })

  test('after an event of a key that fails, none of the key is sent, also when it cannot be encoded', async () => {
    const sent: string[] = []
    const { transport } = scripted(
      (request) => {
        const entries = entriesOf(request)
        const isBad = (entry: Readonly<Record<string, unknown>>): boolean =>
          String(entry['MessageBody']).includes('"fails"')
        sent.push(...entries.map(({ MessageDeduplicationId: id }) => String(id)))
        return {
          Successful: entries.filter((entry) => !isBad(entry)),
          Failed: entries.filter(isBad).map(({ Id }) => ({ Id, Code: 'InternalError' })),
        }
      },
      { queueUrl: `${queueUrl}.fifo` },
    )
    const events = [
      contractEvent({ orderingKey: 'a', payload: 'first' }),
      contractEvent({ orderingKey: 'a', payload: 'fails' }),
      contractEvent({ orderingKey: 'b', payload: 'x'.repeat(1_100_000) }),
      contractEvent({ orderingKey: 'a', payload: 'third' }),
      contractEvent({ orderingKey: 'b', payload: 'second' }),
      contractEvent({ orderingKey: 'c', payload: 'first' }),
      contractEvent({ orderingKey: 'c', payload: 'second' }),
      contractEvent({ payload: 'without a key' }),
      contractEvent({ orderingKey: 'a', tenantId: 'other', payload: 'of another tenant' }),
    ]
    const results = await send(transport, events)
    expect(statusesOf(results)).toEqual([
      ...['delivered', 'retry', 'rejected', 'retry', 'retry', 'delivered', 'delivered', 'delivered'],
      'delivered',
    ])
    const idsOf = (...indexes: number[]): (string | undefined)[] => indexes.map((n) => events[n]?.id)
    expect(sent).toEqual(idsOf(0, 5, 7, 8, 1, 6))
  })

  test('a call that hangs ends after its time, and at its signal; what hangs is aborted', async () => {
    const { transport, requests } = scripted(async () => new Promise(() => {}), { timeoutMs: 100 })
    const [result] = await send(transport, [contractEvent({})])
    expect(result).toMatchObject({ status: 'retry', error: { message: 'no answer within 100 ms' } })
    expect(requests[0]?.signal.aborted).toBe(true)
    const given = new AbortController()
    const hanging = scripted(async () => new Promise(() => {}))
    const call = hanging.transport.publish([contractEvent({})], { signal: given.signal })
    await until('it is sent', () => hanging.requests.length === 1)
    given.abort(new Error('nobody waits'))
    expect(await call).toMatchObject([{ status: 'retry', error: { message: 'nobody waits' } }])
    expect(hanging.requests[0]?.signal.aborted).toBe(true)
  })

  test('close waits for what is under way, and the client of the user is not ended', async () => {
    const answer = Promise.withResolvers<unknown>()
    const destroy = vi.fn<() => void>()
    const { client, commands } = scriptedClient(names, async () => answer.promise)
    const transport = sqs({ client: { ...client, destroy } as never, commands, queueUrl })
    const call = send(transport, [contractEvent({})])
    let isClosed = false
    const closing = transport.close().then(() => (isClosed = true))
    await expect(send(transport, [contractEvent({})])).rejects.toMatchObject({ code: 'BUS_TRANSPORT_CLOSED' })
    expect(isClosed).toBe(false)
    answer.resolve({ Successful: [{ Id: '0' }] })
    expect(statusesOf(await call)).toEqual(['delivered'])
    await closing
    expect(destroy).not.toHaveBeenCalled()
  })
})

describe('clients', () => {
  test('the aggregated client needs no command classes', async () => {
    const queues = await startQueues()
    const queueUrl = newQueue(queues)
    const client = new SQS(clientOptions(queues.server.port))
    onTestFinished(() => client.destroy())
    const send = vi.spyOn(client, 'sendMessageBatch')
    const transport = sqs({ client, queueUrl })
    await transport.open?.()
    expect(await transport.publish([contractEvent({})], { signal })).toEqual([{ status: 'delivered' }])
    expect(send).toHaveBeenCalledTimes(1)
  })

  test.each<[string, unknown, string]>([
    ['no client', { queueUrl }, '`client`'],
    ['a client that is none', { client: {}, queueUrl }, '`client`'],
    ['no queue', { client: { send: () => undefined } }, '`queueUrl`'],
    [
      'an ARN',
      { client: { send: () => undefined }, queueUrl: 'arn:aws:sqs:eu-central-1:123456789012:q' },
      '`queueUrl`',
    ],
    ['an unknown option', { client: { send: () => undefined }, queueUrl, region: 'x' }, '`region`'],
    [
      'an envelope without headers',
      { client: { send: () => undefined }, queueUrl, envelope: 'binary' },
      '`envelope`',
    ],
    ['a class that is missing', { client: { send: () => undefined }, queueUrl, commands: {} }, '`commands`'],
    ['no time', { client: { send: () => undefined }, queueUrl, timeoutMs: 0 }, '`timeoutMs`'],
    ['nothing', undefined, 'options'],
  ])('%s is refused', (_, options, named) => {
    expect(() => sqs(options as SqsOptions)).toThrow(
      expect.objectContaining({
        code: 'BUS_INVALID_OPTION',
        message: expect.stringContaining(named) as string,
      }),
    )
  })
})

describe('by URL', () => {
  test.each([
    ['sqs:https://sqs.eu-central-1.amazonaws.com/123456789012/orders', 'none'],
    ['sqs:https://sqs.eu-central-1.amazonaws.com/123456789012/orders.fifo?envelope=raw', 'key'],
    ['sqs:arn:aws:sqs:eu-central-1:123456789012:orders.fifo', 'key'],
    ['sqs:arn:aws-cn:sqs:cn-north-1:123456789012:orders?region=cn-north-1', 'none'],
    ['sqs:http://localhost:4566/000000000000/orders?region=us-east-1', 'none'],
  ])('%s is one', (url, order) => {
    expect(transportFromUrl(url)).toMatchObject({ name: 'sqs', order, maxEvents: 100 })
  })

  test.each([
    'sqs:',
    'sqs:orders',
    'sqs://orders',
    'sqs:https://sqs.eu-central-1.amazonaws.com',
    'sqs:https://key:secret@sqs.eu-central-1.amazonaws.com/123456789012/orders',
    'sqs:arn:aws:sns:eu-central-1:123456789012:orders',
    'sqs:arn:aws:sqs:eu-central-1:12:orders',
    'sqs:arn:aws:sqs:eu-central-1:123456789012:or/ders',
    'sqs:arn:aws:sqs:eu-central-1:123456789012:orders?envelope=binary',
    'sqs:arn:aws:sqs:eu-central-1:123456789012:orders?region=eu central',
    'sqs:arn:aws:sqs:eu-central-1:123456789012:orders?endpoint=ftp://secret',
    'sqs:arn:aws:sqs:eu-central-1:123456789012:orders?secret=secret',
  ])('%s is refused, without its secrets', (url) => {
    let error: unknown
    try {
      transportFromUrl(url.replaceAll(' ', '%20'))
    } catch (thrown) {
      error = thrown
    }
    expect(error).toMatchObject({ code: 'BUS_INVALID_TRANSPORT_URL' })
    // A parameter of that name is named.
    const message = (error as Error).message.replace('the parameter `secret`', '')
    expect(message).not.toContain('secret')
  })

  test('events arrive: by the URL of the queue and by its ARN, whose URL is asked for', async () => {
    const queues = await startQueues()
    const url = newQueue(queues, 'fifo')
    const { pathname } = new URL(url)
    const name = pathname.split('/').at(-1) ?? ''
    vi.stubEnv('AWS_ACCESS_KEY_ID', 'test')
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test')
    onTestFinished(() => void vi.unstubAllEnvs())
    const endpoint = `http://127.0.0.1:${queues.server.port}`
    const transports = [
      `sqs:${endpoint}${pathname}?region=us-east-1`,
      `sqs:arn:aws:sqs:us-east-1:000000000000:${name}?endpoint=${endpoint}`,
    ].map((each) => transportFromUrl(each))
    for (const transport of transports) {
      await transport.open?.()
      await transport.check({ signal })
      expect(await transport.publish([contractEvent({})], { signal })).toEqual([{ status: 'delivered' }])
      await transport.close()
      await transport.close()
    }
    expect(await takeMessages(queues.sqs, url, 2)).toHaveLength(2)
  })
})

describe('bus.forward', () => {
  test('sends the events of a FIFO queue in the order of their keys, each once', async () => {
    const queues = await startQueues()
    const queueUrl = newQueue(queues, 'fifo')
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    bus.forward({ name: 'out', events: ['note'], to: sqs({ client: queues.sqs, queueUrl }) })
    await bus.start()
    const sent = Array.from({ length: 120 }, (_, n) => ({ key: `k${n % 6}`, n }))
    await database.db.transaction(async (tx) =>
      bus.publishMany(
        tx,
        sent.map((payload) => ({ type: 'note', tenantId: 't', orderingKey: payload.key, payload }) as const),
      ),
    )
    const messages = await takeMessages(queues.sqs, queueUrl, sent.length)
    const got = messages.map((message) => cloudEventOf(message).data as { key: string; n: number })
    for (const key of new Set(sent.map((each) => each.key)))
      expect(got.filter((each) => each.key === key)).toEqual(sent.filter((each) => each.key === key))
    expect(got).toHaveLength(sent.length)
  })

  test('a standard queue has no order: `ordered` is refused', async () => {
    const bus = createBus({
      ...{
        database: 'postgres://nowhere/none',
        events: paymentEvents,
        source: 's',
        logger: recordingLogger(),
      },
    })
    const { transport } = scripted(acceptAll)
    expect(() => bus.forward({ name: 'out', events: ['note'], to: transport, ordered: true })).toThrow(
      expect.objectContaining({ code: 'BUS_INVALID_OPTION' }),
    )
  })
})
