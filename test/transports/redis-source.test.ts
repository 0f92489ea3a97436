import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { redis, type RedisClient } from '../../src/transports/adapters/redis.ts'
import { redisSource, type RedisSourceOptions } from '../../src/transports/adapters/redis-source.ts'
import { brokerPrograms, startBroker, type Broker } from '../support/broker.ts'
import { until } from '../support/database.ts'
import { expectNumbers, holdDatabase, numbered, receivingFrom, untilReceived } from '../support/receiving.ts'

const { signal } = new AbortController()

const client: RedisClient = { call: async () => null }
const good = { client, stream: 's', group: 'g', consumer: 'c' }

test.each<readonly [string, unknown, string]>([
  ['no options', undefined, 'options like { client, stream, group, consumer }'],
  ['no client', { ...good, client: {} }, '`client`'],
  ['no stream', { ...good, stream: '' }, '`stream`'],
  ['no group', { ...good, group: undefined }, '`group`'],
  ['no consumer', { ...good, consumer: 1 }, '`consumer`'],
  ['an unknown key', { ...good, batchsize: 1 }, '`batchSize`'],
  ['an empty batch', { ...good, batchSize: 0 }, '`batchSize`'],
  ['no time', { ...good, claimAfterSeconds: 0 }, '`claimAfterSeconds`'],
])('%s is refused', (_, options, message) => {
  expect(() => redisSource(options as RedisSourceOptions)).toThrow(message)
})

describe.skipIf(brokerPrograms.redis === undefined)('with a server', () => {
  let broker: Broker
  let writer: Redis
  let streamCount = 0

  beforeAll(async () => {
    broker = await startBroker({
      program: brokerPrograms.redis,
      args: (port, folder) => [
        ...['--bind', '127.0.0.1', '--port', String(port), '--dir', folder],
        ...['--appendonly', 'yes', '--appendfsync', 'always', '--save', ''],
      ],
    })
    writer = newIoredis()
  })
  afterAll(async () => {
    writer.disconnect()
    await broker.stop()
  })

  function newIoredis(): Redis {
    const own = new Redis({ port: broker.port, retryStrategy: () => 100 })
    own.on('error', () => {})
    return own
  }

  const clients: readonly (readonly [string, () => Promise<RedisClient>])[] = [
    [
      'ioredis',
      async () => {
        const own = newIoredis()
        onTestFinished(() => own.disconnect())
        return own
      },
    ],
    ...([2, 3] as const).map(
      (RESP) =>
        [
          `redis, with version ${RESP} of the protocol`,
          async () => {
            const own = createClient({ url: `redis://127.0.0.1:${broker.port}`, RESP })
            own.on('error', () => {})
            await own.connect()
            onTestFinished(() => own.destroy())
            return own
          },
        ] as const,
    ),
  ]

  const newIoredisClient = clients[0]?.[1] ?? (() => expect.fail('there is no client'))

  function newStream() {
    streamCount += 1
    const stream = `s${streamCount}`
    const transport = redis({ client: writer, stream })
    const send = async (count: number, from = 0): Promise<void> => {
      for (const event of numbered(count, from)) await transport.publish([event], { signal })
    }
    const pendingCount = async (): Promise<number> =>
      Number(((await writer.xpending(stream, 'g')) as readonly unknown[])[0])
    const source = async (consumer: string, options: Partial<RedisSourceOptions> = {}) =>
      redisSource({ client: await newIoredisClient(), stream, group: 'g', consumer, ...options })
    return { stream, send, pendingCount, source }
  }

  test.each(clients)(
    'each entry becomes one event, in order, and is acknowledged: %s',
    async (_, connect) => {
      const { send, source, pendingCount } = newStream()
      await send(50)
      const receiving = await receivingFrom(await source('c', { client: await connect(), batchSize: 20 }))
      await send(50, 50)
      await untilReceived(receiving, 100)
      const rows = await receiving.database.rows('select payload from bus.events order by id')
      expect(rows.map(({ payload }) => payload)).toEqual(Array.from({ length: 100 }, (_value, n) => n))
      await until('all are acknowledged', async () => (await pendingCount()) === 0)
      await receiving.bus.stop()
    },
  )

  test('what a process left is taken over, and is no second event', async () => {
    const { send, source, pendingCount } = newStream()
    const first = await receivingFrom(await source('one'))
    const release = await holdDatabase(first)
    await send(20)
    await until('some are taken', async () => (await pendingCount()) > 0)
    await first.bus.stop({ graceMs: 500 })
    await release()
    const second = await receivingFrom(await source('two', { claimAfterSeconds: 1 }), first.database)
    await untilReceived(second, 20)
    await until('all are acknowledged', async () => (await pendingCount()) === 0)
    await expectNumbers(second, 20)
    expect(await second.eventCount()).toBe(20)
    await second.bus.stop()
  })

  test('a process of the same name goes on with what it had', async () => {
    const { stream, send, source, pendingCount } = newStream()
    await writer.xgroup('CREATE', stream, 'g', '0', 'MKSTREAM')
    await send(10)
    await writer.xreadgroup('GROUP', 'g', 'c', 'COUNT', 10, 'STREAMS', stream, '>')
    expect(await pendingCount()).toBe(10)
    const receiving = await receivingFrom(await source('c', { batchSize: 3 }))
    await untilReceived(receiving, 10)
    await until('all are acknowledged', async () => (await pendingCount()) === 0)
    await expectNumbers(receiving, 10)
    expect(await receiving.eventCount()).toBe(10)
    await receiving.bus.stop()
  })

  test('it goes on after the server was killed, and after its group was deleted', async () => {
    const { stream, send, source } = newStream()
    const receiving = await receivingFrom(await source('c'))
    await send(5)
    await untilReceived(receiving, 5)
    await broker.kill()
    await broker.start()
    await send(5, 5)
    await untilReceived(receiving, 10)
    await writer.xgroup('DESTROY', stream, 'g')
    await send(5, 10)
    await untilReceived(receiving, 15)
    await expectNumbers(receiving, 15)
    expect(await receiving.eventCount()).toBe(15)
    await receiving.bus.stop()
  })
})
