import { randomUUID } from 'node:crypto'
import { connect, type ChannelModel } from 'amqplib'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { rabbitmq } from '../../src/transports/adapters/rabbitmq.ts'
import { rabbitmqSource, type RabbitmqSourceOptions } from '../../src/transports/adapters/rabbitmq-source.ts'
import { rabbitmqUrl, startCuttable } from '../support/cuttable.ts'
import { until } from '../support/database.ts'
import { expectNumbers, holdDatabase, numbered, receivingFrom, untilReceived } from '../support/receiving.ts'

const { signal } = new AbortController()

const connection = { createChannel: async () => expect.fail('nothing is to be read') }

test.each<readonly [string, unknown, string]>([
  ['no options', undefined, 'options like { connection, queue }'],
  ['no connection', { queue: 'a' }, '`connection`'],
  ['no queue', { connection }, '`queue`'],
  ['an unknown key', { connection, queue: 'a', prefech: 1 }, '`prefetch`'],
  ['no prefetch', { connection, queue: 'a', prefetch: 0 }, '`prefetch`'],
])('%s is refused', (_, options, message) => {
  expect(() => rabbitmqSource(options as RabbitmqSourceOptions)).toThrow(message)
})

test('a source stops while the broker is down', async () => {
  const { promise } = Promise.withResolvers<never>()
  const source = rabbitmqSource({ connection: { createChannel: async () => promise }, queue: 'a' })
  await source.start(async () => {}, { signal, reportFailure: () => {} })
  await expect(source.stop()).resolves.toBeUndefined()
})

describe.skipIf(rabbitmqUrl === undefined)('with a broker', () => {
  const url = rabbitmqUrl ?? ''
  let model: ChannelModel

  beforeAll(async () => {
    model = await connect(url)
  })
  afterAll(async () => model.close())

  /** A queue of its own, and a transport that sends to it. */
  async function newQueue() {
    const queue = `bossbus-test-${randomUUID()}`
    const channel = await model.createChannel()
    await channel.assertQueue(queue, { durable: true })
    const transport = rabbitmq({ connection: model, exchange: '', routingKey: queue })
    onTestFinished(async () => {
      await transport.close()
      await channel.deleteQueue(queue)
      await channel.close()
    })
    const send = async (count: number, from = 0): Promise<void> => {
      for (const event of numbered(count, from)) await transport.publish([event], { signal })
    }
    /** Messages that no consumer has. */
    const readyCount = async (): Promise<number> => (await channel.checkQueue(queue)).messageCount
    return { queue, channel, send, readyCount }
  }

  test('each message becomes one event, in order, and is acknowledged', async () => {
    const { queue, send, readyCount } = await newQueue()
    await send(100)
    const receiving = await receivingFrom(rabbitmqSource({ connection: model, queue, prefetch: 30 }))
    await send(100, 100)
    await untilReceived(receiving, 200)
    const rows = await receiving.database.rows('select payload from bus.events order by id')
    expect(rows.map(({ payload }) => payload)).toEqual(Array.from({ length: 200 }, (_, n) => n))
    await receiving.bus.stop()
    expect(await readyCount()).toBe(0)
  })

  test('a message with an id that comes twice is one event; one without any goes into the quarantine', async () => {
    const { queue, channel, readyCount } = await newQueue()
    const body = Buffer.from(JSON.stringify({ data: 0 }))
    for (const messageId of ['a', 'a', undefined, undefined])
      channel.sendToQueue(queue, body, messageId === undefined ? {} : { messageId })
    const receiving = await receivingFrom(rabbitmqSource({ connection: model, queue }))
    await until('none is left', async () => (await readyCount()) === 0)
    await receiving.bus.stop()
    expect(await readyCount()).toBe(0)
    expect(await receiving.eventCount()).toBe(1)
    expect(
      await receiving.database.rows('select message_id, received_count from bus.quarantined_messages'),
    ).toEqual([{ message_id: expect.stringMatching(/^content:/) as string, received_count: 2 }])
  })

  test('`check` resolves, and rejects when there is no queue', async () => {
    const { queue, channel } = await newQueue()
    const source = rabbitmqSource({ connection: model, queue })
    await source.check({ signal })
    await channel.deleteQueue(queue)
    await expect(source.check({ signal })).rejects.toThrow('NOT_FOUND')
  })

  test('stopping gives back what is not stored', async () => {
    const { queue, send, readyCount } = await newQueue()
    const first = await receivingFrom(rabbitmqSource({ connection: model, queue }))
    const release = await holdDatabase(first)
    await send(20)
    await until('they are delivered', async () => (await readyCount()) === 0)
    await first.bus.stop({ graceMs: 500 })
    await release()
    const second = await receivingFrom(rabbitmqSource({ connection: model, queue }), first.database)
    await untilReceived(second, 20)
    await until('none is left', async () => (await readyCount()) === 0)
    await expectNumbers(second, 20)
    expect(await second.eventCount()).toBe(20)
  })

  test('it goes on after the broker was away, and after its queue was made anew', async () => {
    const { queue, channel, send } = await newQueue()
    const cuttable = await startCuttable(5672)
    const own = await connect(`amqp://guest:guest@127.0.0.1:${cuttable.port}`, {
      recovery: { initialDelay: 50, maxDelay: 200 },
    })
    own.on('error', () => {})
    onTestFinished(async () => {
      await own.close()
      await cuttable.kill()
    })
    const receiving = await receivingFrom(rabbitmqSource({ connection: own, queue }))
    await send(5)
    await untilReceived(receiving, 5)
    await cuttable.kill()
    await send(5, 5)
    await cuttable.start()
    await untilReceived(receiving, 10)
    await channel.deleteQueue(queue)
    await channel.assertQueue(queue, { durable: true })
    await send(5, 10)
    await untilReceived(receiving, 15)
    await expectNumbers(receiving, 15)
    expect(await receiving.eventCount()).toBe(15)
  })
})
