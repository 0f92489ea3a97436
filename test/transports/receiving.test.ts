import { expect, expectTypeOf, test } from 'vitest'
import { RetryAfterError, toCloudEvent, toCloudEventHeaders, type StoredEvent } from '../../src/index.ts'
import type { ReceivedMessage } from '../../src/transports/index.ts'
import { recordingLogger, testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { memorySource, messageWith, type MemorySource } from '../support/memory-source.ts'

const tenantId = 'acme'

const textOf = ({ body }: ReceivedMessage): string => Buffer.from(body).toString()

/** A note with the JSON of the message. */
const toNote = (message: ReceivedMessage) =>
  ({ type: 'note', tenantId, payload: JSON.parse(textOf(message)) as unknown }) as const

interface Scene {
  readonly database: TestDatabase
  readonly bus: PaymentBus
  readonly source: MemorySource
  readonly logger: ReturnType<typeof recordingLogger>
}

async function receiving(
  options: Partial<Parameters<PaymentBus['receive']>[0]> = { map: toNote },
): Promise<Scene> {
  const database = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const source = memorySource()
  bus.receive({ name: 'orders', from: source, ...options })
  await bus.start()
  return { database, bus, source, logger }
}

const { signal } = new AbortController()

const eventsOf = async ({ rows }: TestDatabase): Promise<Record<string, unknown>[]> =>
  rows(
    'select type, tenant_id, payload, event_id, idempotency_key, ordering_key, source from bus.events order by id',
  )

const quarantineOf = async ({ rows }: TestDatabase): Promise<Record<string, unknown>[]> =>
  rows(
    'select message_id, state, code, received_count as count, headers, body_bytes::int as bytes from bus.quarantined_messages order by id',
  )

test('a message becomes one event, and is acknowledged after its commit', async () => {
  const { database, bus, source } = await receiving()
  const delivered: StoredEvent[] = []
  await bus
    .subscribe({ name: 'all', events: ['note'], handler: (event) => void delivered.push(event) })
    .ready()
  source.add(messageWith('1', { n: 1 }), messageWith('2', { n: 2 }))
  await until('both are acknowledged', () => source.acknowledgedCount === 2)
  expect(await eventsOf(database)).toMatchObject([
    {
      type: 'note',
      tenant_id: tenantId,
      payload: { n: 1 },
      idempotency_key: 'orders:1',
      source: 'payment-service',
    },
    { payload: { n: 2 }, idempotency_key: 'orders:2' },
  ])
  await until('both are delivered', () => delivered.length === 2)
})

test('a message that comes again becomes no second event, alone, in a batch or at the same time', async () => {
  const { database, source } = await receiving()
  const messages = Array.from({ length: 20 }, (_, n) => messageWith(`m${n}`, { n }))
  await source.receive(messages, { signal })
  await source.receive([...messages, ...messages, messageWith('other', { n: 99 })], { signal })
  await Promise.all(messages.map(async (message) => source.receive([message], { signal })))
  await Promise.all(Array.from({ length: 10 }, async () => source.receive(messages, { signal })))
  expect(await database.count('select count(*) from bus.events')).toBe(21)
})

test('events are in the log in the order of the messages', async () => {
  const { database, source } = await receiving()
  const messages = Array.from({ length: 300 }, (_, n) => messageWith(`${n}`, n))
  source.add(...messages)
  await until('all are acknowledged', () => source.acknowledgedCount === 300)
  const payloads = (await eventsOf(database)).map(({ payload }) => payload)
  expect(payloads).toEqual(messages.map((_, n) => n))
})

test('several events of a message have keys of their own, and undefined skips it', async () => {
  const { database, source } = await receiving({
    map: (message) => {
      const count = JSON.parse(textOf(message)) as number
      return count === 0
        ? undefined
        : Array.from({ length: count }, (_, n) => ({ type: 'note', tenantId, payload: n }) as const)
    },
  })
  const messages = [messageWith('three', 3), messageWith('none', 0), messageWith('one', 1)]
  await source.receive(messages, { signal })
  await source.receive(messages, { signal })
  expect((await eventsOf(database)).map((event) => event['idempotency_key'])).toEqual([
    'orders:three',
    'orders:three#1',
    'orders:three#2',
    'orders:one',
  ])
  expect(await quarantineOf(database)).toEqual([])
})

test('ids that are alike, long, or cannot be stored are kept apart', async () => {
  const { database, source } = await receiving()
  const ids = [
    ...['a', 'a#1', 'a#1#1', 'A', ' a', 'sha256:a', 'content:a', 'x'.repeat(240), 'x'.repeat(5000)],
    ...[`${'x'.repeat(5000)}y`, 'nul\u0000', 'nul', '\uD800', '\uDC00', '\uFFFD', '🙂'.repeat(200)],
  ]
  const messages = ids.map((id) => messageWith(id, { id: ids.indexOf(id) }))
  await source.receive(messages, { signal })
  await source.receive(messages.toReversed(), { signal })
  expect(await database.count('select count(*) from bus.events')).toBe(ids.length)
  expect(await quarantineOf(database)).toEqual([])
})

test('a key that map gives is kept, and the option tenantId fills in the tenant', async () => {
  const { database, source } = await receiving({
    tenantId: 'rival',
    map: (message) => ({
      type: 'note',
      payload: 1,
      tenantId: message.key,
      idempotencyKey: message.headers['order'],
      eventId: message.headers['event'],
    }),
  })
  await source.receive(
    [
      messageWith('1', 1, { headers: { order: 'o1' } }),
      messageWith('2', 1, { headers: { order: 'o1' } }),
      messageWith('3', 1, { key: 'acme' }),
      messageWith(undefined, 1, { headers: { event: 'e1' } }),
      messageWith(undefined, 1, { headers: { event: 'e1' } }),
    ],
    { signal },
  )
  expect(await eventsOf(database)).toMatchObject([
    { tenant_id: 'rival', idempotency_key: 'o1' },
    { tenant_id: 'acme', idempotency_key: 'orders:3' },
    { tenant_id: 'rival', idempotency_key: null, event_id: 'e1' },
  ])
})

test.each(['kafka', 'nats', 'amqp', 'mqtt', 'http'] as const)(
  'without map CloudEvents are read, structured and as binary headers of %s',
  async (protocol) => {
    const { database, source } = await receiving({})
    const stored = {
      ...{
        id: '0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10',
        type: 'payment.paid',
        source: 'shop',
        tenantId: 'größe',
      },
      ...{ payload: { paymentId: 'p', amountCents: 1 }, schemaVersion: 1, orderingKey: 'account-7' },
      ...{ metadata: {}, createdAt: new Date() },
    } as unknown as StoredEvent
    const cloudEvent = toCloudEvent(stored)
    const headers = toCloudEventHeaders({ ...cloudEvent, id: 'other' }, protocol)
    const binary = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
    )
    await source.receive(
      [
        messageWith('s', cloudEvent, {
          contentType: 'application/cloudevents+json; charset=UTF-8',
          protocol,
        }),
        messageWith('again', cloudEvent, { contentType: 'application/cloudevents+json' }),
        messageWith('b', cloudEvent.data, { headers: binary, protocol }),
      ],
      { signal },
    )
    expect(await quarantineOf(database)).toEqual([])
    const expected = {
      type: 'payment.paid',
      tenant_id: 'größe',
      payload: stored.payload,
      ordering_key: 'account-7',
    }
    expect(await eventsOf(database)).toMatchObject([
      { ...expected, event_id: 'shop 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10', idempotency_key: 'orders:s' },
      { ...expected, event_id: 'shop other', idempotency_key: 'orders:b' },
    ])
  },
)

test('poison goes to the quarantine in the transaction of the others, and is acknowledged', async () => {
  const { database, source, logger } = await receiving({
    map: (message) => {
      if (textOf(message) === 'throw') throw new TypeError('no such field: 4000 1234')
      if (textOf(message) === '"text"') return 'text' as never
      if (textOf(message) === '"reject"') return Promise.reject(new Error('rejected'))
      if (textOf(message) === '"typo"') return { type: 'noet', tenantId, payload: 1 } as never
      if (textOf(message) === '"no tenant"') return { type: 'note', payload: 1 }
      if (textOf(message) === '"function"') return { type: 'note', tenantId, payload: () => {} }
      return toNote(message)
    },
  })
  source.add(
    messageWith('ok', 1),
    messageWith('throws', 'throw', { headers: { name: 'a\u0000b' }, key: 'k' }),
    messageWith('text', 'text'.repeat(1), { body: Buffer.from('"text"') }),
    messageWith('reject', 'reject', { body: Buffer.from('"reject"') }),
    messageWith('typo', 'typo', { body: Buffer.from('"typo"') }),
    messageWith('no tenant', '"no tenant"'),
    messageWith('function', '"function"'),
    messageWith(undefined, 7),
    messageWith('', 7),
    messageWith('not json', '{'),
    messageWith('ok 2', 2),
  )
  await until('all are acknowledged', () => source.acknowledgedCount === 11)
  expect((await eventsOf(database)).map(({ payload }) => payload)).toEqual([1, 2])
  const found = await quarantineOf(database)
  expect(Object.fromEntries(found.map((row) => [row['message_id'], row['code']]))).toEqual({
    throws: 'BUS_MAP_FAILED',
    text: 'BUS_INVALID_EVENT',
    reject: 'BUS_MAP_FAILED',
    typo: 'BUS_UNKNOWN_EVENT_TYPE',
    'no tenant': 'BUS_TENANT_REQUIRED',
    function: 'BUS_PAYLOAD_NOT_JSON',
    [String(found.find((row) => String(row['message_id']).startsWith('content:'))?.['message_id'])]:
      'BUS_MESSAGE_WITHOUT_ID',
    'not json': 'BUS_MAP_FAILED',
  })
  expect(found.find((row) => row['code'] === 'BUS_MESSAGE_WITHOUT_ID')).toMatchObject({ count: 2 })
  expect(found.find((row) => row['message_id'] === 'throws')).toMatchObject({ headers: { name: 'a\uFFFDb' } })
  const told = logger.lines.filter(({ message }) => message.includes('quarantine'))
  expect(told).toHaveLength(9)
  expect(JSON.stringify(told)).not.toContain('"body"')
})

test('a message of the quarantine that comes again is counted, and is there once', async () => {
  const { database, source } = await receiving()
  const poison = messageWith('bad', 'no json')
  await source.receive([poison, poison], { signal })
  await source.receive([poison], { signal })
  expect(await quarantineOf(database)).toMatchObject([{ message_id: 'bad', count: 3, state: 'new' }])
})

test('what the database refuses is found one by one', async () => {
  const { database, source } = await receiving({
    map: (message) => ({ ...toNote(message), orderingKey: message.key }),
  })
  // A constraint of the service, which knows more than the bus.
  await database.rows(`alter table bus.events add constraint no_thirteen check (payload <> '13')`)
  const messages = Array.from({ length: 30 }, (_, n) => messageWith(`${n}`, n))
  await source.receive(messages, { signal })
  expect(await database.count('select count(*) from bus.events')).toBe(29)
  expect(await quarantineOf(database)).toMatchObject([{ message_id: '13', code: 'BUS_DATABASE_ERROR' }])
  await source.receive(messages, { signal })
  expect(await database.count('select count(*) from bus.events')).toBe(29)
  expect(await quarantineOf(database)).toMatchObject([{ message_id: '13', count: 2 }])
})

test('what may work later is neither stored nor put into the quarantine', async () => {
  let isDown: 'bus error' | 'code' | undefined = 'bus error'
  const { database, source, logger } = await receiving({
    map: (message) => {
      if (isDown === 'bus error') throw new RetryAfterError(1)
      if (isDown === 'code') throw Object.assign(new Error('lookup'), { code: 'ECONNREFUSED' })
      return toNote(message)
    },
  })
  source.add(messageWith('1', 1))
  await until('it is refused', () => logger.lines.some(({ level }) => level === 'warn'))
  isDown = 'code'
  await until('it is refused otherwise', () =>
    logger.lines.some(({ fields }) => String(fields['reason']).includes('lookup')),
  )
  expect(source.acknowledgedCount).toBe(0)
  expect(await database.count('select count(*) from bus.quarantined_messages')).toBe(0)
  isDown = undefined
  await until('it is stored', () => source.acknowledgedCount === 1)
  expect(await database.count('select count(*) from bus.events')).toBe(1)
})

test('a receiver is limited by admission, and goes on by itself', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url, { admission: { maxOutboxDepth: 1, action: 'refuse' } })
  const source = memorySource({ batchSize: 1 })
  bus.receive({ name: 'orders', from: source, map: toNote })
  await database.rows(
    `select bus.publish(jsonb_build_array(jsonb_build_object('type', 'note', 'tenantId', 'a', 'source', 'x', 'payload', 1))) from generate_series(1, 5)`,
  )
  await bus.start({ run: ['orders'] })
  source.add(...Array.from({ length: 20 }, (_, n) => messageWith(`${n}`, n)))
  await until('all are stored', () => source.acknowledgedCount === 20)
  expect(await database.count(`select count(*) from bus.events where source = 'payment-service'`)).toBe(20)
})

test('a source runs where everything runs or where it is named', async () => {
  const { url } = await createTestDatabase()
  const start = async (run: 'everything' | 'nothing' | string[]): Promise<string[]> => {
    const bus = testBus(url)
    const source = memorySource()
    bus.subscribe({ name: 'other', events: ['note'], handler: () => {} })
    bus.receive({ name: 'orders', from: source, map: toNote })
    await bus.start({ run })
    await bus.stop({ graceMs: 100 })
    return source.calls
  }
  expect(await start('everything')).toEqual(['open', 'start', 'stop'])
  expect(await start(['orders'])).toEqual(['open', 'start', 'stop'])
  expect(await start(['other'])).toEqual([])
  expect(await start('nothing')).toEqual([])
  await expect(start(['ordres'])).rejects.toThrow('Did you mean `orders`?')
})

test('a receiver may come after the start, and leave', async () => {
  const { database, bus } = await receiving()
  const source = memorySource()
  const handle = bus.receive({ name: 'later', from: source, map: toNote })
  await handle.ready()
  await source.receive([messageWith('1', 1)], { signal })
  expect(await eventsOf(database)).toMatchObject([{ idempotency_key: 'later:1' }])
  await handle.stop({ graceMs: 100 })
  await expect(source.receive([messageWith('2', 2)], { signal })).rejects.toMatchObject({
    code: 'BUS_INVALID_STATE',
  })
  const again = memorySource()
  await bus.receive({ name: 'later', from: again, map: toNote }).ready()
  await again.receive([messageWith('1', 1), messageWith('2', 2)], { signal })
  expect(await database.count('select count(*) from bus.events')).toBe(2)
})

test('a stop waits for messages that are being stored, and gives the others up', async () => {
  const entered = Promise.withResolvers<void>()
  const leave = Promise.withResolvers<void>()
  const { database, bus, source } = await receiving({
    async map(message) {
      entered.resolve()
      await leave.promise
      return toNote(message)
    },
  })
  source.add(messageWith('1', 1))
  await entered.promise
  const stopped = bus.stop({ graceMs: 20_000 })
  await until('the source is stopped', () => source.calls.includes('stop'))
  leave.resolve()
  await stopped
  expect(source.acknowledgedCount).toBe(1)
  expect(await database.count('select count(*) from bus.events')).toBe(1)
})

test('a stop ends although a map never does', async () => {
  const entered = Promise.withResolvers<void>()
  const { database, bus, source } = await receiving({
    async map() {
      entered.resolve()
      return new Promise<never>(() => {})
    },
  })
  source.add(messageWith('1', 1))
  await entered.promise
  await bus.stop({ graceMs: 50 })
  expect(source.acknowledgedCount).toBe(0)
  expect(await database.count('select count(*) from bus.events')).toBe(0)
})

test.each<[what: string, options: Record<string, unknown>, said: string]>([
  ['no name', { name: undefined }, '`name`'],
  ['a name with a colon', { name: 'a:b' }, '`name`'],
  ['no source', { from: undefined }, '`from`'],
  ['a source without stop', { from: { name: 'x', start() {}, check() {} } }, '`from`'],
  ['a map that is no function', { map: 'note' }, '`map`'],
  ['an empty tenant', { tenantId: '' }, '`tenantId`'],
  ['an unknown option', { mapp: toNote }, 'Did you mean `map`?'],
])('%s is refused', async (_what, options, said) => {
  const bus = testBus('postgres://nowhere.invalid/x')
  expect(() => bus.receive({ name: 'orders', from: memorySource(), ...options })).toThrow(said)
})

test('a name is taken once, by a receiver or a subscription', async () => {
  const bus = testBus('postgres://nowhere.invalid/x')
  bus.receive({ name: 'orders', from: memorySource() })
  bus.subscribe({ name: 'all', events: ['note'], handler: () => {} })
  for (const name of ['orders', 'all'])
    expect(() => bus.receive({ name, from: memorySource() })).toThrow(
      expect.objectContaining({ code: 'BUS_DUPLICATE_RECEIVER' }) as Error,
    )
  for (const name of ['orders', 'all'])
    expect(() => bus.subscribe({ name, events: ['note'], handler: () => {} })).toThrow(
      expect.objectContaining({ code: 'BUS_DUPLICATE_SUBSCRIPTION' }) as Error,
    )
})

test('map is typed by the catalogue', () => {
  type Map = NonNullable<Parameters<PaymentBus['receive']>[0]['map']>
  expectTypeOf<Parameters<Map>>().toEqualTypeOf<[message: ReceivedMessage]>()
  const map: Map = () => ({ type: 'payment.refunded', payload: { paymentId: 'p' } })
  // @ts-expect-error -- the payload of another type
  const wrong: Map = () => ({ type: 'payment.refunded', payload: { amountCents: 1 } })
  expect([map, wrong]).toHaveLength(2)
})
