import { jetstream, jetstreamManager, type Consumer, type ConsumerConfig } from '@nats-io/jetstream'
import { connect, nanos, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { nats } from '../../src/transports/adapters/nats.ts'
import { natsSource, type NatsSourceOptions } from '../../src/transports/adapters/nats-source.ts'
import { brokerPrograms, startBroker, type Broker } from '../support/broker.ts'
import { until } from '../support/database.ts'
import { expectNumbers, holdDatabase, numbered, receivingFrom, untilReceived } from '../support/receiving.ts'

const { signal } = new AbortController()

const fake = { consume: () => {}, info: () => {} }

test.each<readonly [string, unknown, string]>([
  ['no options', undefined, 'options like { consumer }'],
  ['no consumer', {}, '`consumer`'],
  ['an unknown key', { consumer: fake, batchsize: 1 }, '`batchSize`'],
  ['an empty batch', { consumer: fake, batchSize: 0 }, '`batchSize`'],
])('%s is refused', (_, options, message) => {
  expect(() => natsSource(options as NatsSourceOptions)).toThrow(message)
})

describe.skipIf(brokerPrograms.nats === undefined)('with a server', () => {
  let broker: Broker
  let connection: NatsConnection
  let streamCount = 0

  beforeAll(async () => {
    broker = await startBroker({
      program: brokerPrograms.nats,
      args: (port, folder) => ['-a', '127.0.0.1', '-p', String(port), '-js', '-sd', folder],
    })
    connection = await connect({ port: broker.port, maxReconnectAttempts: -1, reconnectTimeWait: 100 })
  })
  afterAll(async () => {
    await connection.close()
    await broker.stop()
  })

  /** A stream of its own with a durable consumer, and a transport that sends to it. */
  async function newStream(config: Partial<ConsumerConfig> = {}) {
    streamCount += 1
    const stream = `s${streamCount}`
    const manager = await jetstreamManager(connection)
    await manager.streams.add({ name: stream, subjects: [stream] })
    await manager.consumers.add(stream, {
      durable_name: 'billing',
      ack_policy: 'explicit',
      ack_wait: nanos(2000),
      ...config,
    })
    const consumer = async (): Promise<Consumer> => jetstream(connection).consumers.get(stream, 'billing')
    const unacknowledged = async (): Promise<number> => {
      const { num_ack_pending, num_pending } = await manager.consumers.info(stream, 'billing')
      return num_ack_pending + num_pending
    }
    const transport = nats({ jetstream: jetstream(connection), subject: stream })
    const send = async (count: number, from = 0): Promise<void> => {
      for (const event of numbered(count, from)) await transport.publish([event], { signal })
    }
    return { stream, manager, consumer, unacknowledged, send }
  }

  test('each message becomes one event, in order, and is acknowledged', async () => {
    const { consumer, unacknowledged, send } = await newStream()
    await send(100)
    const receiving = await receivingFrom(natsSource({ consumer: await consumer(), batchSize: 30 }))
    await send(100, 100)
    await untilReceived(receiving, 200)
    await expectNumbers(receiving, 200)
    expect(await receiving.eventCount()).toBe(200)
    const rows = await receiving.database.rows('select payload from bus.events order by id')
    expect(rows.map(({ payload }) => payload)).toEqual(Array.from({ length: 200 }, (_, n) => n))
    await until('all are acknowledged', async () => (await unacknowledged()) === 0)
  })

  test('`check` resolves, and rejects when there is no consumer', async () => {
    const { stream, manager, consumer } = await newStream()
    const source = natsSource({ consumer: await consumer() })
    await source.check({ signal })
    await manager.consumers.delete(stream, 'billing')
    await expect(source.check({ signal })).rejects.toThrow('consumer')
  })

  test('while the database is slow nothing is acknowledged, and nothing comes twice', async () => {
    const { stream, manager, consumer, unacknowledged, send } = await newStream()
    const receiving = await receivingFrom(natsSource({ consumer: await consumer() }))
    const release = await holdDatabase(receiving)
    await send(10)
    // Longer than the server waits for an acknowledgement.
    const until4s = performance.now() + 4000
    await until('time has passed', () => performance.now() > until4s)
    expect(await unacknowledged()).toBe(10)
    expect((await manager.consumers.info(stream, 'billing')).num_redelivered).toBe(0)
    await release()
    await untilReceived(receiving, 10)
    await until('all are acknowledged', async () => (await unacknowledged()) === 0)
    await expectNumbers(receiving, 10)
    expect(await receiving.eventCount()).toBe(10)
  })

  test('what is delivered again becomes no second event, also to another process', async () => {
    const { stream, manager, consumer, send } = await newStream()
    await send(50)
    const first = await receivingFrom(natsSource({ consumer: await consumer() }))
    await untilReceived(first, 50)
    await first.bus.stop()
    // Another consumer of the same name begins from the start.
    await manager.consumers.delete(stream, 'billing')
    await manager.consumers.add(stream, { durable_name: 'billing', ack_policy: 'explicit' })
    const second = await receivingFrom(natsSource({ consumer: await consumer() }), first.database)
    await send(10, 50)
    await untilReceived(second, 60)
    await expectNumbers(second, 60)
    expect(await second.eventCount()).toBe(60)
  })

  test('a stream that is made anew has new messages', async () => {
    const { stream, manager, consumer, send } = await newStream()
    await send(3)
    const first = await receivingFrom(natsSource({ consumer: await consumer() }))
    await untilReceived(first, 3)
    await first.bus.stop()
    await manager.streams.delete(stream)
    await manager.streams.add({ name: stream, subjects: [stream] })
    await manager.consumers.add(stream, { durable_name: 'billing', ack_policy: 'explicit' })
    const second = await receivingFrom(natsSource({ consumer: await consumer() }), first.database)
    await send(3, 3)
    await untilReceived(second, 6)
    expect(await second.eventCount()).toBe(6)
  })

  test('it goes on after the server was killed, and after its consumer was made anew', async () => {
    const { stream, manager, consumer, send } = await newStream()
    const receiving = await receivingFrom(natsSource({ consumer: await consumer() }))
    await send(5)
    await untilReceived(receiving, 5)
    await broker.kill()
    await broker.start()
    await until('the connection is back', async () =>
      connection.rtt().then(
        () => true,
        () => false,
      ),
    )
    await send(5, 5)
    await untilReceived(receiving, 10)
    await manager.consumers.delete(stream, 'billing')
    await manager.consumers.add(stream, { durable_name: 'billing', ack_policy: 'explicit' })
    await send(5, 10)
    await untilReceived(receiving, 15)
    await expectNumbers(receiving, 15)
    expect(await receiving.eventCount()).toBe(15)
  })

  test('stopping gives back what is not stored', async () => {
    const { consumer, unacknowledged, send } = await newStream({ ack_wait: nanos(60_000) })
    const first = await receivingFrom(natsSource({ consumer: await consumer() }))
    const release = await holdDatabase(first)
    await send(20)
    await until('they are delivered', async () => (await unacknowledged()) === 20)
    const stopping = first.bus.stop({ graceMs: 500 })
    await stopping
    await release()
    const second = await receivingFrom(natsSource({ consumer: await consumer() }), first.database)
    await untilReceived(second, 20)
    await expectNumbers(second, 20)
    expect(await second.eventCount()).toBe(20)
    onTestFinished(async () => second.bus.stop())
  })
})
