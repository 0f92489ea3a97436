import { EventBridge, EventBridgeClient } from '@aws-sdk/client-eventbridge'
import { HTTP, type CloudEvent } from 'cloudevents'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import type { StoredEvent } from '../../src/index.ts'
import { transportContract } from '../../src/testing/index.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { eventbridge, type EventbridgeOptions } from '../../src/transports/adapters/eventbridge.ts'
import { transportFromUrl, type Transport } from '../../src/transports/index.ts'
import { present } from '../support/forwarding.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { clientOptions } from '../support/fauxqs.ts'
import { sizeOf, startEventBridge, type EventBridgeStub } from '../support/put-events.ts'

const { signal } = new AbortController()

async function statuses(transport: Transport, events: readonly StoredEvent[]): Promise<string[]> {
  return (await transport.publish(events, { signal })).map(({ status }) => status)
}

describe('an event bus', () => {
  const stubs = new Map<Transport, EventBridgeStub>()
  const cases = transportContract({
    async create() {
      const stub = await startEventBridge()
      const transport = eventbridge({ client: stub.client, eventBus: 'orders' })
      stubs.set(transport, stub)
      return transport
    },
    async receive(transport) {
      const { accepted } = stubs.get(transport) ?? expect.unreachable()
      return accepted
        .map(({ Detail }) => JSON.parse(Detail) as { readonly id: string; readonly data: unknown })
        .map(({ id, data }) => ({ id, payload: data }))
    },
    createUnreachable() {
      const client = new EventBridgeClient(clientOptions(1))
      onTestFinished(() => client.destroy())
      return eventbridge({ client })
    },
    tooLargeBytes: 1_048_576,
  })
  test.each(cases)('$name', async ({ run }) => expect(await run()).toBeUndefined())
})

test('an entry has the source, the type, the time and the CloudEvent, which the official SDK reads', async () => {
  const { client, accepted } = await startEventBridge()
  const event = contractEvent({ tenantId: 'acme', subject: 'orders/1', payload: { amount: 1 } })
  expect(await statuses(eventbridge({ client }), [event])).toEqual(['delivered'])
  const [entry = expect.unreachable()] = accepted
  expect(entry).toMatchObject({
    ...{ EventBusName: 'default', Source: event.source, DetailType: event.type, Resources: [] },
  })
  expect(Math.floor(entry.Time)).toBe(Math.floor(event.createdAt.getTime() / 1000))
  const headers = { 'content-type': 'application/cloudevents+json' }
  const read = HTTP.toEvent({ headers, body: entry.Detail }) as CloudEvent<unknown>
  expect(read).toMatchObject({ id: event.id, type: event.type, tenantid: 'acme', data: { amount: 1 } })
})

test('the raw envelope is the payload, with the id in the resources; only objects are possible', async () => {
  const { client, accepted } = await startEventBridge()
  const events = [{ a: 1 }, [1], 'text', null].map((payload) => contractEvent({ payload }))
  expect(await statuses(eventbridge({ client, envelope: 'raw' }), events)).toEqual([
    'delivered',
    ...['rejected', 'rejected', 'rejected'],
  ])
  expect(accepted).toMatchObject([{ Detail: '{"a":1}', Resources: [`urn:uuid:${events[0]?.id}`] }])
})

test('each entry has its own result, and the others of a request arrive', async () => {
  const stub = await startEventBridge()
  const codes = new Map([
    [1, 'MalformedDetail'],
    [3, 'InternalFailure'],
    [5, 'ThrottlingException'],
    [7, 'NotAuthorizedForSourceException'],
    [9, 'AccessDeniedException'],
  ])
  stub.judge = ({ Detail }) => {
    const { data } = JSON.parse(Detail) as { readonly data: { readonly n: number } }
    const ErrorCode = codes.get(data.n)
    return ErrorCode === undefined ? undefined : { ErrorCode, ErrorMessage: `entry ${data.n}` }
  }
  const results = await eventbridge({ client: stub.client }).publish(
    manyEvents(10, () => ({})),
    { signal },
  )
  expect(results.map(({ status }) => status)).toEqual([
    ...['delivered', 'rejected', 'delivered', 'retry', 'delivered', 'retry', 'delivered', 'rejected'],
    ...['delivered', 'retry'],
  ])
  expect(results[1]).toMatchObject({ error: { name: 'MalformedDetail', message: 'entry 1' } })
  expect(stub.accepted).toHaveLength(5)
})

test('a bus that is missing fails `check`, and its events are tried again: somebody may create it', async () => {
  const { client } = await startEventBridge()
  const transport = eventbridge({ client, eventBus: 'elsewhere' })
  await expect(transport.check({ signal })).rejects.toMatchObject({ name: 'ResourceNotFoundException' })
  expect(await statuses(transport, [contractEvent({})])).toEqual(['retry'])
})

describe('limits', () => {
  test('an entry of 1,048,575 bytes is sent, one of a byte more is rejected before the call', async () => {
    const { client, requests } = await startEventBridge()
    const transport = eventbridge({ client })
    const event = (length: number): StoredEvent =>
      contractEvent({ createdAt: new Date(1_700_000_000_000), source: 'sürce', payload: 'x'.repeat(length) })
    await statuses(transport, [event(0)])
    const room = 1_048_575 - sizeOf(present(requests[0]?.[0], 'there is no request'))
    expect(await statuses(transport, [event(room)])).toEqual(['delivered'])
    expect(sizeOf(present(requests[1]?.[0], 'there is no request'))).toBe(1_048_575)
    expect(await statuses(transport, [event(room + 1)])).toEqual(['rejected'])
    expect(requests).toHaveLength(2)
  })

  test('requests have at most ten entries, and less than 1 MiB together', async () => {
    const { client, requests } = await startEventBridge()
    const transport = eventbridge({ client })
    await statuses(
      transport,
      manyEvents(25, () => ({})),
    )
    expect(requests.map(({ length }) => length).toSorted((a, b) => a - b)).toEqual([5, 10, 10])
    requests.length = 0
    const events = manyEvents(7, () => ({ payload: 'x'.repeat(300_000) }))
    expect(await statuses(transport, events)).toEqual(events.map(() => 'delivered'))
    expect(requests.map(({ length }) => length).toSorted((a, b) => a - b)).toEqual([1, 3, 3])
  })
})

test('the aggregated client needs no command classes', async () => {
  const { port } = await startEventBridge()
  const client = new EventBridge(clientOptions(port))
  onTestFinished(() => client.destroy())
  expect(await statuses(eventbridge({ client }), [contractEvent({})])).toEqual(['delivered'])
})

test.each<[string, unknown, string]>([
  ['no client', {}, '`client`'],
  ['a name that is none', { client: { send: () => undefined }, eventBus: 'a b' }, '`eventBus`'],
  [
    'an ARN of another service',
    { client: { send: () => undefined }, eventBus: 'arn:aws:sns:a:123456789012:b' },
    '`eventBus`',
  ],
  ['an unknown option', { client: { send: () => undefined }, bus: 'x' }, '`bus`'],
  ['an envelope without headers', { client: { send: () => undefined }, envelope: 'binary' }, '`envelope`'],
])('%s is refused', (_, options, named) => {
  expect(() => eventbridge(options as EventbridgeOptions)).toThrow(
    expect.objectContaining({
      code: 'BUS_INVALID_OPTION',
      message: expect.stringContaining(named) as string,
    }),
  )
})

test.each([
  'eventbridge:orders',
  'eventbridge:default?region=eu-central-1&envelope=raw',
  'eventbridge:arn:aws:events:eu-central-1:123456789012:event-bus/orders',
])('%s is one', (url) => {
  expect(transportFromUrl(url)).toMatchObject({ name: 'eventbridge', order: 'none', maxEvents: 100 })
})

test.each([
  'eventbridge:',
  'eventbridge:a%20b',
  'eventbridge:arn:aws:sqs:eu-central-1:123456789012:orders',
  'eventbridge:orders?order=key',
])('%s is refused', (url) => {
  expect(() => transportFromUrl(url)).toThrow(expect.objectContaining({ code: 'BUS_INVALID_TRANSPORT_URL' }))
})

test('bus.forward sends by URL, and refuses `ordered`', async () => {
  const stub = await startEventBridge()
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test')
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test')
  onTestFinished(() => void vi.unstubAllEnvs())
  const to = transportFromUrl(`eventbridge:orders?region=us-east-1&endpoint=http://127.0.0.1:${stub.port}`)
  const bus = testBus((await createTestDatabase()).url)
  expect(() => bus.forward({ name: 'ordered', events: ['note'], to, ordered: true })).toThrow(
    expect.objectContaining({ code: 'BUS_INVALID_OPTION' }),
  )
  bus.forward({ name: 'out', events: ['note'], to })
  await bus.start()
  for (let n = 0; n < 30; n += 1)
    await bus.tryPublish({ type: 'note', tenantId: 't', orderingKey: 'k', payload: n })
  await until('all are there', () => stub.accepted.length === 30)
})
